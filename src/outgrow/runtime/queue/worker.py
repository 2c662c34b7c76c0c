"""Works on messages inside an application's process, on its event loop.

    woken by a commit, or by the clock ─► claim a batch ─► run them, `concurrency` at once
                                                              ├─ done ──► acknowledge, many at a time
                                                              ├─ error ─► release with back-off
                                                              └─ too often ─► bury
    meanwhile: extend the lease of all that is claimed

Delivery is at least once: a process that dies between a task's end and its acknowledgement leaves
the message to be delivered again when its lease is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
import secrets
import traceback
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Protocol

import msgspec

from outgrow.errors import DatabaseError, Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope

BATCH_MAX = 100
LEASE_S = 30.0
POLL_S = (1.0, 5.0)
"""How often the table is looked at when nothing wakes the worker: from the first to the second."""

BACK_OFF_S = (1.0, 600.0)
CLOSE_S = 10.0
REASON_LENGTH_MAX = 2000

logger = logging.getLogger("outgrow.queue")

Adopt = Callable[[dict[str, str]], Scope]
"""Makes the scope of a message from its headers: its bookmark and its trace."""


class Claimed(Protocol):
    """A message as the outbox hands it out."""

    @property
    def id(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> str: ...
    @property
    def attempts(self) -> int: ...


class Outbox(Protocol):
    """Where messages wait (see runtime.database.outbox.Outbox)."""

    async def due_in(self, topic: str) -> float | None: ...
    async def claim(self, topic: str, count: int, lease: str, lease_s: float) -> list[Any]: ...
    async def extend(self, ids: Iterable[int], lease: str, lease_s: float) -> int: ...
    async def acknowledge(self, ids: Iterable[int], lease: str) -> int: ...
    async def release(self, identifier: int, lease: str, *, delay_s: float, reason: str) -> int: ...
    async def give_back(self, ids: Iterable[int], lease: str) -> int: ...
    async def bury(self, identifier: int, lease: str, *, reason: str) -> int: ...


class Worker:
    """Claims and runs the messages of one topic. `find` turns a body into a task and its arguments."""

    def __init__(
        self,
        outbox: Outbox,
        find: Callable[[bytes], tuple[Any, list[Any], dict[str, Any]]],
        events: Events,
        adopt: Adopt,
        *,
        topic: str,
        concurrency: int,
        lease_s: float = LEASE_S,
    ) -> None:
        self._outbox = outbox
        self._find = find
        self._events = events
        self._adopt = adopt
        self._topic = topic
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(max(1, concurrency))
        self._lease_s = lease_s
        self._lease = secrets.token_hex(8)
        self._woken = asyncio.Event()
        self._finished = asyncio.Event()
        self._claimed: dict[int, asyncio.Task[None] | None] = {}
        self._done: list[int] = []
        self._loops: list[asyncio.Task[None]] = []
        self._closing = False

    def wake(self, topic: str) -> None:
        """A message was committed in this process."""
        if topic == self._topic:
            self._woken.set()

    def start(self) -> None:
        """Begin. Does nothing when it has begun."""
        if not self._loops:
            self._closing = False
            self._lease = secrets.token_hex(8)
            self._loops = [
                asyncio.create_task(loop(), name=f"outgrow-queue-{name}")
                for name, loop in (
                    ("claim", self._claim_for_ever),
                    ("acknowledge", self._acknowledge_for_ever),
                    ("extend", self._extend_for_ever),
                )
            ]

    async def close(self) -> None:
        """Claim no more; what runs has 10 s to end, then it is cancelled and given back."""
        if not self._loops:
            return
        self._closing = True
        self._woken.set()
        _, late_claim = await asyncio.wait(self._loops[:1], timeout=CLOSE_S / 2)
        for loop in late_claim:
            loop.cancel()
        await _ended(late_claim)
        running = [task for task in self._claimed.values() if task is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await _ended(late)
        for loop in self._loops:
            loop.cancel()
        await _ended(self._loops)
        self._loops = []
        with contextlib.suppress(DatabaseError):  # then the lease runs out, and they are delivered again
            if self._done:
                await self._outbox.acknowledge(self._take_done(), self._lease)
            if self._claimed:
                await self._outbox.give_back(list(self._claimed), self._lease)
        self._claimed.clear()

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing is due or running."""
        async with asyncio.timeout(timeout_s):
            while self._claimed or self._done or (await self._outbox.due_in(self._topic)) == 0.0:
                self._woken.set()
                await asyncio.sleep(0.01)

    async def _claim_for_ever(self) -> None:
        pause = POLL_S[0]
        while not self._closing:
            room = min(BATCH_MAX, max(1, self._concurrency * 4)) - len(self._claimed)
            claimed: list[Claimed] = []
            due: float | None = None
            try:
                self._woken.clear()
                if room > 0:
                    due = await self._outbox.due_in(self._topic)
                    if due == 0.0:
                        claimed = await self._claim(room)
            except DatabaseError as error:
                logger.warning("the queue cannot be read: %s", error)
            if claimed or self._closing:
                pause = POLL_S[0]
                continue
            wait = pause if due is None else min(pause, max(due, 0.01))
            pause = min(pause * 1.5, POLL_S[1])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait * random.uniform(0.9, 1.1)):
                    await self._woken.wait()
                    pause = POLL_S[0]

    async def _claim(self, count: int) -> list[Claimed]:
        # The claim is itself a commit after those that staged the messages: whoever reads at its
        # position sees the rows that the messages speak of.
        scope = Scope()
        token = request.current.set(scope)
        try:
            claimed = await self._outbox.claim(self._topic, count, self._lease, self._lease_s)
        finally:
            request.current.reset(token)
        for message in claimed:
            self._claimed[message.id] = None
        for message in claimed:
            await self._slots.acquire()
            if self._closing:
                self._slots.release()
                break
            task = asyncio.create_task(self._work(message, scope))
            task.add_done_callback(lambda _: self._slots.release())
            self._claimed[message.id] = task
        return claimed

    async def _work(self, message: Claimed, claim: Scope) -> None:
        started = perf_counter()
        scope = self._adopt(msgspec.json.decode(message.headers, type=dict[str, str]))
        scope.bookmark.merge(claim.bookmark)
        token = request.current.set(scope)
        name = "unknown"
        try:
            task, args, kwargs = self._find(message.body)
            name = task.name
            await _run(task, args, kwargs)
        except asyncio.CancelledError:
            raise  # close() gives it back
        except Exception as error:
            await self._failed(message, name, error, started)
        else:
            self._done.append(message.id)
            self._finished.set()
            self._events.message_finished(name, "done", perf_counter() - started, message.attempts)
        finally:
            request.current.reset(token)

    async def _failed(self, message: Claimed, name: str, error: Exception, started: float) -> None:
        reason = "".join(traceback.format_exception(error))[-REASON_LENGTH_MAX:]
        attempts_max = self._attempts_of(message)
        dead = message.attempts >= attempts_max
        logger.error(
            "%s failed at attempt %d of %d%s: %s", name, message.attempts, attempts_max,
            ", buried" if dead else "", error, exc_info=not isinstance(error, Misuse),
        )  # fmt: skip
        try:
            if dead:
                await self._outbox.bury(message.id, self._lease, reason=reason)
            else:
                delay = min(BACK_OFF_S[1], BACK_OFF_S[0] * 2 ** (message.attempts - 1)) * random.uniform(0.5, 1.0)
                await self._outbox.release(message.id, self._lease, delay_s=delay, reason=reason)
        except DatabaseError as unreachable:
            logger.warning("%s: its failure could not be noted, it is delivered again: %s", name, unreachable)
        finally:
            self._claimed.pop(message.id, None)
        self._events.message_finished(name, "dead" if dead else "retry", perf_counter() - started, message.attempts)

    def _attempts_of(self, message: Claimed) -> int:
        try:
            return int(self._find(message.body)[0].attempts)
        except Exception:
            return 20  # a task that this version does not know may be known to the next deploy

    async def _acknowledge_for_ever(self) -> None:
        """While one statement runs, the next ones gather: many acknowledgements share a commit."""
        while True:
            await self._finished.wait()
            self._finished.clear()
            ids = self._take_done()
            try:
                await self._outbox.acknowledge(ids, self._lease)
            except DatabaseError as error:
                logger.warning("%d acknowledgements failed, tried again: %s", len(ids), error)
                self._done += ids
                await asyncio.sleep(1.0)
                self._finished.set()
                continue
            except asyncio.CancelledError:
                self._done += ids
                raise
            for identifier in ids:
                self._claimed.pop(identifier, None)
            self._woken.set()

    def _take_done(self) -> list[int]:
        done, self._done = self._done, []
        return done

    async def _extend_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            if self._claimed:
                try:
                    await self._outbox.extend(list(self._claimed), self._lease, self._lease_s)
                except DatabaseError as error:
                    logger.warning("the leases could not be extended: %s", error)


async def _run(task: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    if inspect.iscoroutinefunction(task.function):
        async with asyncio.timeout(task.timeout_s):
            await task.function(*args, **kwargs)
    else:
        await asyncio.to_thread(task.function, *args, **kwargs)


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)

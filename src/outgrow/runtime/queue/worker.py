"""Works on messages inside an application's process, on its event loop.

    woken by a commit, or by the clock ─► claim a batch ─► run them, `concurrency` at once
                                                              ├─ done ──► acknowledge, many at a time
                                                              ├─ error ─► release with back-off
                                                              └─ too often ─► bury
    meanwhile: extend the lease of all that is held

Delivery is at least once: a process that dies between a task's end and its acknowledgement leaves
the message to be delivered again when its lease is over.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import secrets
import traceback
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import msgspec

from outgrow.errors import DatabaseError, Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope

HELD_MAX = 100
HELD_PER_SLOT = 4
"""How many messages a process holds for each that can run: a claim costs a commit, so it takes several."""

UNKNOWN_ATTEMPTS_MAX = 20
"""A task that this version does not know may be known to the next deploy."""

REASON_LENGTH_MAX = 2000

logger = logging.getLogger("outgrow.queue")

Adopt = Callable[[dict[str, str]], Scope]
"""Makes the scope of a message from its headers: its bookmark and its trace."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a worker spends its time. A pair is the shortest and the longest, with growth in between."""

    lease_s: float = 30.0
    poll_s: tuple[float, float] = (1.0, 5.0)
    """How often the table is looked at when nothing wakes the worker."""

    back_off_s: tuple[float, float] = (1.0, 600.0)
    """How long a failed message waits, at most; the real wait is random below that ("full jitter")."""

    close_s: float = 10.0
    """How long close() waits for what runs."""


class Claimed(Protocol):
    """A message as the outbox hands it out. `attempts` counts this delivery."""

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
    async def extend(self, ids: Collection[int], lease: str, lease_s: float) -> int: ...
    async def acknowledge(self, ids: Collection[int], lease: str) -> int: ...
    async def release(self, identifier: int, lease: str, *, delay_s: float, reason: str) -> int: ...
    async def give_back(self, ids: Collection[int], lease: str) -> int: ...
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
        pace: Pace,
    ) -> None:
        self._outbox = outbox
        self._find = find
        self._events = events
        self._adopt = adopt
        self._topic = topic
        self._concurrency = concurrency
        self._held_max = min(HELD_MAX, concurrency * HELD_PER_SLOT)
        self._pace = pace
        self._lease = ""
        self._woken = asyncio.Event()
        self._finished = asyncio.Event()
        self._held: set[int] = set()
        self._ready: deque[tuple[Claimed, Scope]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._done: list[int] = []
        self._loops: list[asyncio.Task[None]] = []
        self._claiming = False
        self._closing = False

    @property
    def started(self) -> bool:
        """Whether it works."""
        return bool(self._loops)

    def figures(self) -> dict[str, int]:
        """Messages of this process by state."""
        return {"running": len(self._running), "waiting": len(self._ready)}

    def wake(self, topic: str) -> None:
        """A message was committed in this process."""
        if topic == self._topic:
            self._woken.set()

    def start(self) -> None:
        """Begin. Does nothing when it has begun."""
        if self._loops:
            return
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
        """Claim no more; what runs has a while to end, then it is cancelled. What is left is given back."""
        if not self._loops:
            return
        self._closing = True
        self._ready.clear()
        self._woken.set()
        await _end(self._loops[:1], self._pace.close_s)
        await _end(self._running, self._pace.close_s)
        await _end(self._loops, 0)
        self._loops = []
        done = self._take_done()
        left = self._held.difference(done)
        self._held.clear()
        for ids, let_go in ((done, self._outbox.acknowledge), (left, self._outbox.give_back)):
            if ids:
                try:
                    await let_go(list(ids), self._lease)
                except DatabaseError as error:
                    logger.warning("%d messages wait until their lease is over: %s", len(ids), error)

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing is due or running. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while (await self._outbox.due_in(self._topic)) == 0.0 or self._claiming or self._held:
                self._woken.set()
                await asyncio.sleep(0.01)

    # Claiming

    async def _claim_for_ever(self) -> None:
        shortest, longest = self._pace.poll_s
        pause = shortest
        while not self._closing:
            self._woken.clear()
            due = None
            try:
                if self._has_room():
                    due = await self._outbox.due_in(self._topic)
                    if due == 0.0 and await self._claim():
                        pause = shortest
                        continue
            except Exception as error:
                _complain("the queue cannot be read", error)
            wait = pause if due is None else min(pause, max(due, 0.01))
            try:
                async with asyncio.timeout(wait * random.uniform(0.9, 1.1)):
                    await self._woken.wait()
                pause = shortest
            except TimeoutError:
                pause = min(pause * 1.5, longest)

    def _has_room(self) -> bool:
        """Not as soon as one has ended: a claim costs a commit, however many it brings."""
        return len(self._held) <= self._held_max // 2

    async def _claim(self) -> bool:
        # The claim is itself a commit after those that staged the messages: whoever reads at its
        # position sees the rows that the messages speak of.
        scope = Scope()
        token = request.current.set(scope)
        self._claiming = True
        try:
            count = self._held_max - len(self._held)
            claimed: list[Claimed] = await self._outbox.claim(
                self._topic, count, self._lease, self._pace.lease_s
            )
        finally:
            request.current.reset(token)
            self._claiming = False
        for message in claimed:
            if message.id not in self._held:  # else its lease was over, but it runs here nevertheless
                self._held.add(message.id)
                self._ready.append((message, scope))
        if self._closing:
            self._ready.clear()  # close() gives them back
        self._fill()
        return bool(claimed)

    def _fill(self) -> None:
        while self._ready and len(self._running) < self._concurrency:
            task = asyncio.create_task(self._work(*self._ready.popleft()))
            self._running.add(task)
            task.add_done_callback(self._has_run)

    def _has_run(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fill()
        if self._has_room():
            self._woken.set()

    # Running

    async def _work(self, message: Claimed, claim: Scope) -> None:
        started = perf_counter()
        token = request.current.set(self._scope_of(message, claim))
        name, attempts_max, outcome = "unknown", UNKNOWN_ATTEMPTS_MAX, "done"
        try:
            try:
                task, args, kwargs = self._find(message.body)
                name, attempts_max = task.name, task.attempts
                if message.attempts > attempts_max:
                    raise WorkerLost(f"each of its {attempts_max} attempts ended with its worker's death")
                await _run(task, args, kwargs)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _being_cancelled():
                    raise  # by close(), which gives the message back
                outcome = "dead" if message.attempts >= attempts_max else "retry"
                logger.log(
                    logging.ERROR if outcome == "dead" else logging.WARNING,
                    "%s failed at attempt %d of %d%s: %s",
                    name, message.attempts, attempts_max, ", buried" if outcome == "dead" else "", error,
                    exc_info=None if isinstance(error, Misuse | WorkerLost) else error,
                )  # fmt: skip
                await self._put_back(message, outcome, error)
            else:
                self._done.append(message.id)
                self._finished.set()
            self._events.message_finished(name, outcome, perf_counter() - started, message.attempts)
        finally:
            request.current.reset(token)

    def _scope_of(self, message: Claimed, claim: Scope) -> Scope:
        try:
            scope = self._adopt(msgspec.json.decode(message.headers, type=dict[str, str]))
        except Exception as error:
            _complain(f"message {message.id} is worked on without its headers", error)
            scope = Scope()
        scope.bookmark.merge(claim.bookmark)
        return scope

    async def _put_back(self, message: Claimed, outcome: str, error: BaseException) -> None:
        """Note the failure. When that fails too, the end of the lease brings the message back."""
        reason = "".join(traceback.format_exception(error))[-REASON_LENGTH_MAX:].replace("\0", "")
        try:
            if outcome == "dead":
                await self._outbox.bury(message.id, self._lease, reason=reason)
            else:
                shortest, longest = self._pace.back_off_s
                delay_s = random.uniform(0, min(longest, shortest * 2 ** (message.attempts - 1)))
                await self._outbox.release(message.id, self._lease, delay_s=delay_s, reason=reason)
        except Exception as unreachable:
            _complain(f"message {message.id} waits until its lease is over", unreachable)
        finally:
            self._held.discard(message.id)

    # Keeping the table up to date

    async def _acknowledge_for_ever(self) -> None:
        """While one statement runs, the next ones gather: many acknowledgements share a commit."""
        while True:
            await self._finished.wait()
            self._finished.clear()
            ids = self._take_done()
            try:
                await self._outbox.acknowledge(ids, self._lease)
            except BaseException as error:
                self._done += ids
                if not isinstance(error, Exception):
                    raise
                _complain(f"{len(ids)} acknowledgements have to be tried again", error)
                await asyncio.sleep(self._pace.poll_s[0])
                self._finished.set()
            else:
                self._held.difference_update(ids)
                if self._has_room():
                    self._woken.set()

    def _take_done(self) -> list[int]:
        done, self._done = self._done, []
        return done

    async def _extend_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pace.lease_s / 3)
            if self._held:
                try:
                    await self._outbox.extend(list(self._held), self._lease, self._pace.lease_s)
                except Exception as error:
                    _complain("the leases could not be extended", error)


class WorkerLost(Exception):
    """Nobody lived to say why a message failed: it is not tried once more."""


async def _run(task: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    if not inspect.iscoroutinefunction(task.function):
        await asyncio.to_thread(task.function, *args, **kwargs)
        return
    limit = asyncio.timeout(task.timeout_s)
    try:
        async with limit:
            await task.function(*args, **kwargs)
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"it ran for more than {task.timeout_s:g} s") from error
        raise


async def _end(tasks: Collection[asyncio.Task[None]], patience_s: float) -> None:
    """Wait for them, then cancel those that have not ended."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=patience_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _complain(what: str, error: Exception) -> None:
    """The database being away is expected at times and told in a line; anything else with its place."""
    logger.warning("%s: %s", what, error, exc_info=None if isinstance(error, DatabaseError) else error)

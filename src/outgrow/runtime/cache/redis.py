"""One connection to Redis: what is asked at the same time is sent together, and answered in its order.

    ask ─┐
    ask ─┼─► one write ─► Redis ─► one read ─┬─► answers, in the order of their questions
    ask ─┘                                   └─► pushed messages, in their place among the answers

That order is what the cache builds on: whoever has an answer has heard everything that was published before
it was given. The clients that there are wait for each answer before the next question, or check a connection
out of a pool for it, which costs ten times as much (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from outgrow.runtime.breaker import Breaker
from outgrow.runtime.cache.slowness import LOOK_S, LOOKS, Slowness

CONNECT_WITHIN_S = 1.0
RETRY_S = 0.05
RETRY_MAX_S = 1.0
ANSWER_WITHIN_S = 0.5
"""A server that is later than that is as good as gone: what it keeps is to be had elsewhere."""

REST_S_MAX = 4.0
"""A server that was too slow is left alone for up to so long between two trials."""

TRIAL_EVERY_S = 0.05
SLOW = "it answers too slowly"

Word = str | int | float | bytes | memoryview
_NOTHING = object()


class Gone(Exception):
    """There is no answer; whether what was asked for has happened nobody knows."""

    def __init__(self, reason: str = "the server of the shared cache does not answer") -> None:
        super().__init__(reason)


class Pipe(asyncio.Protocol):
    """RESP3. `pushed` gets what nobody asked for, `broken` is called when it is lost, and when it is slow.

    A server that does not answer in time has lost it: then it is `late`. One that takes long for its answers
    (slowness.py) makes it `slow`.
    """

    def __init__(self, pushed: Callable[[list[Any]], None], broken: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pushed = pushed
        self._broken = broken
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.WriteTransport | None = None
        self._out: list[bytes] = []
        self._waiting: deque[tuple[float, asyncio.Future[Any], Callable[[Any], Any] | None]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._slowness = Slowness()
        self.closed = self.late = self.slow = False

    def ask(self, *words: Word, then: Callable[[Any], Any] | None = None) -> asyncio.Future[Any]:
        """What `then` makes of the answer, in its place among the pushed messages; else the answer itself.

        The future raises Gone, also for what Redis has against the command.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.closed:
            _fail(answer, Gone())
            return answer
        if not self._out:
            self._loop.call_soon(self._send)
        self._out.append(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub takes one word
        self._waiting.append((self._loop.time(), answer, then))
        if self._watch is None:
            self._watch = self._loop.call_later(LOOK_S, self._look)
        return answer

    def tell(self, *words: Word) -> None:
        """A command that is answered by pushed messages alone."""
        if not self._out:
            self._loop.call_soon(self._send)
        self._out.append(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub takes one word

    def close(self) -> None:
        """Hang up. Whoever waits is told Gone."""
        if self._transport is not None:
            self._transport.close()
        self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From here on it can be written to."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while not self.closed:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError:
                self.close()
                return
            if reply is _NOTHING:
                return
            if isinstance(reply, hiredis.PushNotification):
                self._pushed(reply)
                continue
            if not self._waiting:  # what was told was refused: who has asked since has got its answer
                self.close()
                return
            self._answered(*self._waiting.popleft()[1:], reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits is told Gone."""
        if self.closed:
            return
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, answer, _ in waiting:
            _fail(answer, Gone())
        self._broken()

    def _answered(self, answer: asyncio.Future[Any], then: Callable[[Any], Any] | None, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            _fail(answer, Gone(str(reply)))
            if str(reply).startswith("NOSCRIPT"):
                self.close()  # somebody has emptied it of what a new connection begins with
            return
        found = reply if then is None else then(reply)
        if not answer.done():
            answer.set_result(found)

    def _send(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        """The oldest question is asked after now and then, instead of a clock for each."""
        assert self._watch is not None
        now = self._loop.time()
        lag_s = now - self._watch.when()
        waits_s = now - self._waiting[0][0] if self._waiting else 0.0
        self._watch = None
        if waits_s - lag_s > ANSWER_WITHIN_S:
            self.late = True
            if self._transport is not None:
                self._transport.abort()
            self.connection_lost(None)
            return
        if self._waiting:
            self._watch = self._loop.call_later(LOOK_S, self._look)
        if self._slowness.look(waits_s, lag_s) and not self.slow:
            self.slow = True
            self._broken()

    def judge_anew(self) -> None:
        """By what comes from now on."""
        self.slow = False
        self._slowness = Slowness()


class Link:
    """A connection that is made again whenever it is lost. `url` holds no password.

    `begin` is called with each new one, then `again`: it can be asked. `lost`: it cannot. `pushed`: see Pipe.
    A server that was late or slow can only be told (`slowly`) until it has shown that it is quick: nobody
    waits for it, and others hear nevertheless of what is written here.
    """

    def __init__(
        self,
        url: str,
        password: str | None,
        *,
        begin: Callable[[Pipe], Awaitable[None]],
        again: Callable[[], None],
        pushed: Callable[[list[Any]], None],
        lost: Callable[[], None],
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._tls = ssl.create_default_context() if parts.scheme == "rediss" else None
        self._database = parts.path.strip("/") or "0"
        self._user, self._password = unquote(parts.username or "default"), password
        self._begin, self._again, self._pushed, self._lost = begin, again, pushed, lost
        self._pipe: Pipe | None = None
        self._told: Pipe | None = None
        self._breaker = Breaker(1, REST_S_MAX)
        self._broken = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.trouble = "not connected yet"

    async def open(self) -> None:
        """Connect, and stay connected. A server that does not answer stops nobody from starting."""
        self._task = asyncio.get_running_loop().create_task(self._keep())
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._settled.wait()

    async def close(self) -> None:
        """Hang up for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def up(self) -> bool:
        """Whether it can be asked."""
        return self._pipe is not None

    def ask(
        self, *words: Word, then: Callable[[Any], Any] | None = None, slowly: bool = False
    ) -> asyncio.Future[Any]:
        """See Pipe.ask. `slowly`: also where the answer may take its time."""
        pipe = self._told if slowly else self._pipe
        if pipe is None:
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            _fail(answer, Gone())
            return answer
        return pipe.ask(*words, then=then)

    async def _keep(self) -> None:
        wait_s = RETRY_S
        while True:
            if await self._serve():
                wait_s = RETRY_S
            self._settled.set()
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    async def _serve(self) -> bool:
        """A connection, as long as it lasts. Whether there was one."""
        pipe: Pipe | None = None
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                _, pipe = await asyncio.get_running_loop().create_connection(
                    lambda: Pipe(self._pushed, self._break), self._host, self._port, ssl=self._tls
                )
                await self._greet(pipe)
                await self._begin(pipe)
            self._told = pipe
            while not pipe.closed:
                await self._use(pipe)
        except (OSError, TimeoutError, Gone, hiredis.HiredisError) as error:
            self.trouble = f"{type(error).__name__}: {error}"
            return False
        else:
            self.trouble = "the connection was lost"
            return True
        finally:
            self._told = None
            if pipe is not None:
                if pipe.late:
                    self._breaker.failed()
                    self.trouble = SLOW
                pipe.close()

    async def _use(self, pipe: Pipe) -> None:
        """Until it is lost or slow; not before it is quick, if it was late or slow."""
        self._broken.clear()
        if self._breaker.open and not await self._is_quick(pipe):
            return
        self._breaker.worked()
        self._pipe, self.trouble = pipe, ""
        self._again()
        self._settled.set()
        await self._broken.wait()
        if pipe.slow:
            self._breaker.failed()
            self.trouble = SLOW

    async def _is_quick(self, pipe: Pipe) -> bool:
        """Let it rest, then ask it for as long as it takes to judge it."""
        self._settled.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._breaker.rest_s):
                await self._broken.wait()
        pipe.judge_anew()
        loop = asyncio.get_running_loop()
        ends = loop.time() + (LOOKS + 2) * LOOK_S
        while loop.time() < ends and not (pipe.closed or pipe.slow):
            pipe.ask("PING")
            await asyncio.sleep(TRIAL_EVERY_S)
        if pipe.slow:
            self._breaker.failed()
        return not (pipe.closed or pipe.slow)

    async def _greet(self, pipe: Pipe) -> None:
        account = ("AUTH", self._user, self._password) if self._password is not None else ()
        await pipe.ask("HELLO", 3, *account)
        if self._database != "0":
            await pipe.ask("SELECT", self._database)

    def _break(self) -> None:
        if self._pipe is not None:
            self._pipe = None
            self._lost()
        self._broken.set()


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever asked without waiting for the answer does not look at it

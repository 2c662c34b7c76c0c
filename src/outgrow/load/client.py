"""HTTP/1.1 over bare sockets and httptools: the least that lies between a request and the wire.

    Pool.send ─► an idle connection, or a new one ─► Connection.write ─► ... ─► Answer or Failure ─► done

A request is never repeated, and a connection that has been idle for some seconds is not used again: so
each failure is the application's, and not a race between its idle timeout and the next request.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import httptools

from outgrow.load.target import Target
from outgrow.load.wire import Place, Wire

IDLE_S_MAX = 4.0
"""Less than what servers allow (uvicorn: 5 s)."""

BODY_BYTES_MAX = 32 << 20
_SWEEP_S = 0.02
"""How often timeouts are looked at: their grid."""


class Answer(NamedTuple):
    """What came back. Header names are lower case.

    `sent` is when its request left, or began to wait for a connection to be made, and `received` when its
    end was here (time.monotonic): what we do before and afterwards is not the application's.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    sent: float = 0.0
    received: float = 0.0


class Failure(NamedTuple):
    """That nothing came back, or nothing that is HTTP: its kind, and what is known of it."""

    kind: str
    detail: str


Done = Callable[[Answer | Failure], None]


class Pool:
    """Connections to one target. At most `maximum` requests are under way, each with `timeout_s`."""

    def __init__(self, target: Target, *, maximum: int, timeout_s: float) -> None:
        self._place = Place(target.address, target.port)
        self.maximum = maximum
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()
        self._deadlines: deque[tuple[float, Exchange]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        self.under_way: set[Exchange] = set()
        self.connections_opened = 0

    @property
    def free(self) -> bool:
        """Whether one more request may be sent."""
        return len(self.under_way) < self.maximum

    def send(self, data: bytes, done: Done) -> None:
        """Send a whole request; `done` is called once, never from within this call."""
        exchange = Exchange(self, data, done)
        self.under_way.add(exchange)
        self._deadlines.append((exchange.sent + self._timeout_s, exchange))
        while self._idle:
            connection = self._idle.pop()
            if (sent := connection.begin(exchange)) is not None:
                exchange.sent = sent
                return
        task = self._loop.create_task(self._connect(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def close(self, kind: str = "") -> None:
        """Close all connections. What is under way fails with this kind, or is forgotten without one."""
        self._sweeper.cancel()
        for exchange in list(self.under_way):
            if kind:
                exchange.end(Failure(kind, "the run ended first"))
            else:
                exchange.forget()
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        while self._idle:
            self._idle.pop().close()

    def release(self, connection: Connection) -> None:
        """The connection is free for another request."""
        self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        """The connection has gone."""
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self, exchange: Exchange) -> None:
        try:
            connection = Connection(self, await self._place.connect())
        except OSError as error:
            exchange.end(Failure(_connect_kind(error), str(error)))
            return
        self.connections_opened += 1
        if exchange.is_over:
            connection.close()
        else:
            connection.begin(exchange)

    def _sweep(self) -> None:
        now = monotonic()
        while self._deadlines and (self._deadlines[0][1].is_over or self._deadlines[0][0] <= now):
            self._deadlines.popleft()[1].end(Failure("timeout", f"no whole answer in {self._timeout_s:g} s"))
        while self._idle and self._idle[0].idle_since < now - IDLE_S_MAX:
            self._idle.popleft().close()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)


class Exchange:
    """One request and its answer."""

    __slots__ = ("_done", "_pool", "connection", "data", "is_over", "sent")

    def __init__(self, pool: Pool, data: bytes, done: Done) -> None:
        self._pool = pool
        self._done = done
        self.data = data
        self.sent = monotonic()
        self.connection: Connection | None = None
        self.is_over = False

    def end(self, outcome: Answer | Failure) -> None:
        """Its outcome; a second one means nothing."""
        if not self.is_over:
            self.forget()
            self._done(outcome)

    def forget(self) -> None:
        """It is over, and nobody asks how."""
        self.is_over = True
        self._pool.under_way.discard(self)
        if self.connection is not None:
            self.connection.give_up()


class Connection:
    """One connection, which carries one request at a time."""

    def __init__(self, pool: Pool, connected: socket.socket) -> None:
        self._pool = pool
        self._wire = Wire(connected, self._came, self._lost)
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._until_close = False
        self._received = 0.0
        self.idle_since = 0.0

    def begin(self, exchange: Exchange) -> float | None:
        """Send the request of this exchange. Returns when it left; None when the connection has gone."""
        if not self._wire.open:
            return None
        self._exchange = exchange
        exchange.connection = self
        sent = self._wire.send(exchange.data)
        exchange.data = b""  # it is kept until its deadline has passed
        return sent

    def give_up(self) -> None:
        """Its exchange has ended without an answer, which may still come: it cannot be used again."""
        if self._exchange is not None:
            self._exchange = None
            self.close()

    def close(self) -> None:
        """Close it at once."""
        self._wire.close()
        self._pool.discard(self)

    # --- What the wire calls.

    def _came(self, data: bytes, moment: float) -> None:
        """A part of an answer, or something that nobody has asked for."""
        self._received = moment
        if self._exchange is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(Failure("protocol", f"this is no HTTP: {error}"))
            self.close()

    def _lost(self, error: OSError | None) -> None:
        """It has gone; an answer without a length ends with it."""
        self._pool.discard(self)
        if self._exchange is None:
            return
        if error is None and self._until_close:
            self._received = monotonic()
            self._answer()
        elif error is None:
            self._end(Failure("closed", "the connection was closed before the whole answer"))
        else:
            self._end(Failure("reset", str(error)))

    # --- What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Whether the end of the connection will be the end of the body."""
        names = {name for name, _ in self._headers}
        self._until_close = b"content-length" not in names and b"transfer-encoding" not in names

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._chunks.append(body)
        self._size += len(body)
        if self._size > BODY_BYTES_MAX:
            self._end(Failure("protocol", f"a body of more than {BODY_BYTES_MAX >> 20} MB"))
            self.close()

    def on_message_complete(self) -> None:
        """The whole answer, unless it was one that only announces another (100, 103)."""
        if self._parser.get_status_code() < 200:
            self._forget_answer()
            return
        keep = self._exchange is not None and self._parser.should_keep_alive()
        self._answer()
        if not keep:
            self.close()

    def _answer(self) -> None:
        body, sent = b"".join(self._chunks), self._exchange.sent if self._exchange is not None else 0.0
        answer = Answer(self._parser.get_status_code(), self._headers, body, sent, self._received)
        self._forget_answer()
        if self._parser.should_keep_alive() and self._wire.open:
            self.idle_since = self._received
            exchange, self._exchange = self._exchange, None
            self._pool.release(self)
            if exchange is not None:
                exchange.connection = None
                exchange.end(answer)
        else:
            self._end(answer)

    def _end(self, outcome: Answer | Failure) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.connection = None
            exchange.end(outcome)

    def _forget_answer(self) -> None:
        self._headers, self._chunks, self._size = [], [], 0
        self._until_close = False


def _connect_kind(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError):
        return "reset"
    return "connect"

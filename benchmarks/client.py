"""The load: keep-alive connections over asyncio's protocols, with requests made in advance.

    closed loop   each connection sends its next request when its last one is answered: the peak rate
    open loop     requests leave at a constant rate, answered or not; a latency counts from the moment
                  at which the request should have left, and how late the client itself was is told

Cookies are kept by user, as browsers do: who has written carries a bookmark from then on.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from benchmarks.mix import Request

CONNECTIONS = 32
OPEN_LOOP_CONNECTIONS_MAX = 512
ANSWER_TIMEOUT_S = 30.0


class WrongAnswer(Exception):
    """A version answered with an error under load: its figures are worth nothing."""


@dataclass
class Load:
    """What one run of the load saw. Seconds; `late` is how late requests left."""

    requests: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


class Session:
    """The requests in turn, with each user's token and cookies."""

    def __init__(self, requests: Sequence[Request], tokens: dict[int, str]) -> None:
        self._prepared = [
            (each.encoded(tokens.get(each.user) if each.user else None), each) for each in requests
        ]
        self._cookies: dict[int, dict[bytes, bytes]] = {}
        self._at = 0

    def next(self) -> tuple[bytes, Request]:
        """The next request, whole."""
        head, request = self._prepared[self._at]
        self._at = (self._at + 1) % len(self._prepared)
        jar = self._cookies.get(request.user) if request.user is not None else None
        if jar:
            cookies = b"; ".join(name + b"=" + value for name, value in jar.items())
            return head + b"cookie: " + cookies + b"\r\n\r\n" + request.body, request
        return head + b"\r\n" + request.body, request

    def keep_cookie(self, request: Request, header: bytes) -> None:
        """Note what a set-cookie header says."""
        if request.user is not None:
            name, _, value = header.partition(b";")[0].partition(b"=")
            self._cookies.setdefault(request.user, {})[name.strip()] = value.strip()


class Connection(asyncio.Protocol):
    """One connection, one request at a time. `done` is called with it after each answer."""

    def __init__(self, session: Session, done: Any) -> None:
        self._session = session
        self._done = done
        self._transport: Any = None
        self._held = b""
        self._length = -1
        self.request: Request | None = None
        self.intended = 0.0
        self.failure: BaseException | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.request is not None:
            self.failure = exc or ConnectionError("closed before the answer")
            self._done(self)

    def send(self, intended: float) -> None:
        """Send the next request, which should have left at `intended`."""
        self.intended = intended
        data, self.request = self._session.next()
        self._transport.write(data)

    def close(self) -> None:
        """Close it; nothing is under way."""
        self.request = None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        held = self._held = self._held + data if self._held else data
        if self._length < 0:
            end = held.find(b"\r\n\r\n")
            if end < 0:
                return
            self._length = end + 4 + self._read_head(held[: end + 2])
        if len(held) < self._length:
            return
        self._held, self._length = b"", -1
        self._done(self)

    def _read_head(self, head: bytes) -> int:
        """The body's length. An answer that is no success is noted as the failure."""
        if head[9:10] != b"2":
            line = head.partition(b"\r\n")[0].decode()
            self.failure = WrongAnswer(f"{self.request}: {line}")
        start = head.find(b"\r\ncontent-length: ")
        if start < 0:
            raise WrongAnswer(f"{self.request}: an answer without content-length")
        at = head.find(b"\r\nset-cookie: ")
        if at >= 0 and self.request is not None:
            self._session.keep_cookie(self.request, head[at + 14 : head.find(b"\r\n", at + 14)])
        return int(head[start + 18 : head.find(b"\r\n", start + 18)])


async def closed_loop(
    port: int, session: Session, seconds: float, connections: int = CONNECTIONS, *, limit: int | None = None
) -> Load:
    """As many requests as get answered, or `limit`. Raises WrongAnswer for the first that is no success."""
    load = Load()
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    started = perf_counter()
    deadline = started + seconds
    open_connections = 0

    def done(connection: Connection) -> None:
        nonlocal open_connections
        now = perf_counter()
        if connection.failure is not None:
            if not finished.done():
                finished.set_exception(connection.failure)
            return
        load.requests += 1
        load.latencies.append(now - connection.intended)
        if now < deadline and (limit is None or load.requests < limit):
            connection.send(now)
            return
        connection.close()
        open_connections -= 1
        if not open_connections and not finished.done():
            load.seconds = now - started
            finished.set_result(None)

    all_of_them = [await _connect(port, session, done) for _ in range(connections)]
    open_connections = len(all_of_them)
    started = perf_counter()
    deadline = started + seconds
    with _without_collector():
        for connection in all_of_them:
            connection.send(perf_counter())
        await asyncio.wait_for(finished, seconds + ANSWER_TIMEOUT_S)
    return load


async def open_loop(port: int, session: Session, rate: float, seconds: float) -> Load:
    """Requests at a constant rate. Raises like `closed_loop`."""
    load = Load()
    free: deque[Connection] = deque()
    failures: list[BaseException] = []

    def done(connection: Connection) -> None:
        if connection.failure is not None:
            failures.append(connection.failure)
            return
        load.requests += 1
        load.latencies.append(perf_counter() - connection.intended)
        free.append(connection)

    count = CONNECTIONS
    free.extend([await _connect(port, session, done) for _ in range(count)])
    with _without_collector():
        started = perf_counter()
        for number in range(int(rate * seconds)):
            intended = started + number / rate
            # It spins: its core is its own, and the loop's timers have a resolution of a millisecond.
            while perf_counter() < intended or (not free and count >= OPEN_LOOP_CONNECTIONS_MAX):
                await asyncio.sleep(0)
            if failures:
                raise failures[0]
            if not free:
                count += 1
                free.append(await _connect(port, session, done))
            load.late.append(perf_counter() - intended)
            free.popleft().send(intended)
        await _drain(load, int(rate * seconds), failures)
        load.seconds = perf_counter() - started
    for connection in free:
        connection.close()
    return load


async def _drain(load: Load, expected: int, failures: list[BaseException]) -> None:
    deadline = perf_counter() + ANSWER_TIMEOUT_S
    while load.requests < expected:
        if failures:
            raise failures[0]
        if perf_counter() > deadline:
            raise WrongAnswer(f"{expected - load.requests} requests were never answered")
        await asyncio.sleep(0)


async def _connect(port: int, session: Session, done: Any) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(session, done), "127.0.0.1", port)
    return connection


class _without_collector:  # noqa: N801
    """The client's own pauses are no business of the server's latencies."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *error: object) -> None:
        gc.enable()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float]) -> Iterator[float]:
    """min, median, max."""
    ordered = sorted(values)
    yield from (ordered[0], percentile(ordered, 0.5), ordered[-1])

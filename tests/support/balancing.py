"""A real balancer before small real servers of ours, and load through it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import cast

import httptools
import msgspec

from outgrow.engines.balancer import Server
from outgrow.engines.base import Placement
from outgrow.engines.envoy.envoy import Envoy
from outgrow.load.client import Answer, Failure, Pool
from outgrow.load.target import Target
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.process import write_files
from outgrow.supervisor.supervisor import Supervisor
from outgrow.topology import Topology, parse
from outgrow.workload import Address
from tests.support.ports import free_network

PORT = 8000


class Seen(msgspec.Struct):
    """A request as a server has seen it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: str


class Upstream:
    """An HTTP server that does `concurrency` requests at a time, each in `seconds`, and notes them all."""

    def __init__(self, name: str, address: Address, *, seconds: float = 0.0, concurrency: int = 1000) -> None:
        self.name = name
        self.address = address
        self.seconds = seconds
        self.cost: Callable[[str], float] = lambda path: 1.0
        self.turn = asyncio.Semaphore(concurrency)
        self.status = 200
        self.health = 200
        self.seen: list[Seen] = []
        self.checked = 0
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self.address.host, self.address.port, backlog=1024
        )

    async def stop(self) -> None:
        """At once, as a killed process would: what is under way breaks."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for each in list(self.connections):
            each.abort()
        await asyncio.sleep(0)

    @property
    def count(self) -> int:
        return len(self.seen)

    async def answer(self, seen: Seen) -> tuple[int, dict[str, str]]:
        async with self.turn:
            if self.seconds:
                await asyncio.sleep(self.seconds * self.cost(seen.path))
        return self.status, {"x-server": self.name, "server": "secret/1.0"}


class _Connection(asyncio.Protocol):
    """One request at a time, as Envoy sends them."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._reset()

    def _reset(self) -> None:
        self._path, self._body, self._headers = b"", b"", cast("dict[str, str]", {})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._upstream.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._upstream.connections.discard(self)
        for task in self._tasks:
            task.cancel()

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def abort(self) -> None:
        self._transport.abort()

    def write_raw(self, data: bytes) -> None:
        """For answers of other kinds."""
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method, peer = self._parser.get_method().decode(), self._transport.get_extra_info("peername")[0]
        seen = Seen(method, self._path.decode(), self._headers, self._body, peer)
        self._reset()
        if seen.headers.get("user-agent") == "Envoy/HC":
            self._upstream.checked += 1
            self._write(self._upstream.health, {})
            return
        self._upstream.seen.append(seen)
        task = asyncio.get_running_loop().create_task(self._answer(seen))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, seen: Seen) -> None:
        status, headers = await self._upstream.answer(seen)
        self._write(status, headers, with_body=seen.method != "HEAD")

    def _write(self, status: int, headers: dict[str, str], *, with_body: bool = True) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body = ("ok" if status == 200 else "no") if with_body else ""
        self._transport.write(f"HTTP/1.1 {status} Some\r\n{lines}content-length: 2\r\n\r\n{body}".encode())


class Balanced:
    """A balancer with this [balancer] configuration, and its servers."""

    def __init__(self, folder: Path, configuration: str, counts: dict[str, int]) -> None:
        network = free_network()
        self.topology = self._parsed(configuration, network)
        self.placement = Placement(folder, folder, f"{network}.250")
        self._network = network
        self.supervisor = Supervisor(Logs(folder / "logs"), f"balancing-{network}")
        self.servers: list[Server] = []
        self.upstreams: dict[str, Upstream] = {}
        self._numbers = itertools.count(1)
        for pool, count in counts.items():
            for _ in range(count):
                self.add(pool)

    def _parsed(self, configuration: str, network: str) -> Topology:
        return parse(f'application = {{ host = "{network}.251", port = 8080 }}\n{configuration}')

    def add(self, pool: str = "app", weight: int = 1) -> Upstream:
        number = next(self._numbers)
        server = Server(f"{pool}-{number}", Address(f"{self._network}.{number}", PORT), pool, weight)
        self.servers.append(server)
        self.upstreams[server.name] = Upstream(server.name, server.address)
        return self.upstreams[server.name]

    def __getitem__(self, name: str) -> Upstream:
        return self.upstreams[name]

    @property
    def engine(self) -> Envoy:
        return Envoy(self.topology, self.placement, self.servers)

    @property
    def address(self) -> Address:
        return Address(self.topology.application.host, self.topology.application.port)

    @property
    def folder(self) -> Path:
        return self.placement.state / "balancer" / "balancer-1"

    async def start(self) -> None:
        await asyncio.gather(*(each.start() for each in self.upstreams.values()))
        await self.supervisor.start(self.engine.workloads())

    def change(self, configuration: str | None = None) -> None:
        """Rewrite the files of the running balancer: other servers, or another configuration."""
        if configuration is not None:
            self.topology = self._parsed(configuration, self._network)
        write_files(self.engine.files())

    async def stop(self) -> None:
        await self.supervisor.stop()
        await asyncio.gather(*(each.stop() for each in self.upstreams.values()))

    def shares(self) -> dict[str, float]:
        """How much of what the servers have seen each has seen; it is forgotten then."""
        counts = {name: each.count for name, each in self.upstreams.items()}
        total = sum(counts.values()) or 1
        for each in self.upstreams.values():
            each.seen.clear()
        return {name: count / total for name, count in counts.items()}


@contextlib.asynccontextmanager
async def balanced(folder: Path, configuration: str = "", **counts: int) -> AsyncIterator[Balanced]:
    """A running balancer; `counts` is how many servers each pool has (`app` has 3 unless it is named)."""
    made = Balanced(folder, configuration, counts or {"app": 3})
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def request(method: str = "GET", path: str = "/", body: bytes = b"", **headers: str) -> bytes:
    """A whole request. Underscores in the names of headers stand for hyphens."""
    lines = {"host": "example.org"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if body or method in ("POST", "PUT"):
        lines |= {"content-length": str(len(body))}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + body


async def send(address: Address, data: bytes, timeout_s: float = 20.0) -> Answer | Failure:
    """One request on a connection of its own."""
    load = Load(address, timeout_s=timeout_s)
    try:
        return await load.send(data)
    finally:
        await load.close()


async def status(address: Address, data: bytes) -> int:
    """Of the answer to one request, whose body, if there is one, nobody reads."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(data)
        async with asyncio.timeout(20):
            return int((await reader.readline()).split(b" ")[1])
    finally:
        writer.close()


def header(answer: Answer | Failure, name: str) -> str | None:
    assert isinstance(answer, Answer), answer
    return next((value.decode() for key, value in answer.headers if key == name.encode()), None)


class Load:
    """Requests through the balancer, on kept connections; each outcome is noted with its latency."""

    def __init__(self, address: Address, *, maximum: int = 1000, timeout_s: float = 20.0) -> None:
        target = Target("", "example.org", address.host, address.port, "")
        self._pool = Pool(target, maximum=maximum, timeout_s=timeout_s)
        self.outcomes: list[tuple[float, float, Answer | Failure]] = []
        self._tasks: set[asyncio.Task[object]] = set()

    async def send(self, data: bytes) -> Answer | Failure:
        begun, done = monotonic(), asyncio.get_running_loop().create_future()
        self._pool.send(data, lambda outcome: None if done.done() else done.set_result(outcome))
        outcome: Answer | Failure = await done
        self.outcomes.append((begun, monotonic() - begun, outcome))
        return outcome

    async def at_rate(
        self, rate: float, seconds: float, requests: Sequence[bytes] = (request(),)
    ) -> list[float]:
        """Open loop: requests leave in equal steps, answered or not. Returns the latencies of answers 200."""
        begun, first = monotonic(), len(self.outcomes)
        for number, data in enumerate(itertools.cycle(requests)):
            due = begun + number / rate
            if due > begun + seconds:
                break
            if due > monotonic():
                await asyncio.sleep(due - monotonic())
            task = asyncio.get_running_loop().create_task(self.send(data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)
        return [
            latency
            for _, latency, outcome in self.outcomes[first:]
            if isinstance(outcome, Answer) and outcome.status == 200
        ]

    async def many(self, count: int, concurrency: int = 8, data: bytes = request()) -> None:
        """Closed loop: so many requests, some at a time."""
        left = iter(range(count))

        async def one() -> None:
            for _ in left:
                await self.send(data)

        await asyncio.gather(*(one() for _ in range(concurrency)))

    @property
    def failed(self) -> Counter[str]:
        """What did not end with 200, by kind."""
        return Counter(
            outcome.kind if isinstance(outcome, Failure) else str(outcome.status)
            for _, _, outcome in self.outcomes
            if isinstance(outcome, Failure) or outcome.status != 200
        )

    async def close(self) -> None:
        await self._pool.close()


@contextlib.asynccontextmanager
async def load(balanced: Balanced) -> AsyncIterator[Load]:
    """Load on this balancer."""
    made = Load(balanced.address)
    try:
        yield made
    finally:
        await made.close()


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def eventually(condition: Callable[[], object], what: str, within_s: float = 10.0) -> None:
    """Wait for it. Fails with `what` when it does not come."""
    deadline = monotonic() + within_s
    while not condition():
        assert monotonic() < deadline, f"waited {within_s:g} s for {what}"
        await asyncio.sleep(0.02)

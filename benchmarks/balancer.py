"""The balancer: which algorithm chooses well, and what a request through it costs.

    python -m benchmarks.balancer [algorithms] [cost] [--quick] [--write]

algorithms   servers that only wait (a request takes its time on one of a server's four places), so that a
             machine of two cores can stand for four of different speed; open loop, clients of 200 addresses
cost         the example application and the conventional one, directly and through Envoy, all on the
             servers' core, in turns
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import uvloop

from benchmarks import machine, report, versions
from benchmarks.client import Session, closed_loop, open_loop, percentile
from benchmarks.data import FULL, TINY, make
from benchmarks.mix import Request
from benchmarks.servers import Application, free_port, open_databases
from benchmarks.versions import CONVENTIONAL, EXAMPLE_OFF, EXAMPLE_ON
from outgrow.engines.balancer import Server
from outgrow.engines.base import Placement
from outgrow.engines.envoy.envoy import Envoy
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.supervisor import Supervisor
from outgrow.topology import parse
from outgrow.workload import Address
from tests.support.balancing import Balanced, balanced, request

ALGORITHMS = ("round-robin", "weighted-round-robin", "least-connections", "ip-hash", "least-response-time")
CLIENTS = tuple(f"127.{30 + number // 100}.{number % 100}.7" for number in range(200))
PLACES = 4
UNIT_S = 0.01
COSTS = (1,) * 14 + (2,) * 5 + (4,)
"""Of twenty requests, in units: most are cheap. The dear ones are more than the p99 leaves out."""

MEAN_COST = sum(COSTS) / len(COSTS)


@dataclass(frozen=True)
class Fleet:
    """Servers by how many times slower each is, and how much of what all can do is asked of them."""

    name: str
    slower: tuple[int, ...]
    load: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.load * sum(PLACES / (UNIT_S * MEAN_COST * each) for each in self.slower)


FLEETS = (
    Fleet("four equal servers, 50% load", (1, 1, 1, 1), 0.5),
    Fleet("one 5 times slower, 20% load", (5, 1, 1, 1), 0.2),
    Fleet("1, 1, 2 and 4 times slower, 50% load", (4, 2, 1, 1), 0.5),
)


@dataclass
class Outcome:
    """Latencies in seconds, how many requests failed, and each server's share."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    shares: list[float] = field(default_factory=list)


class Clients:
    """Requests from many addresses, each with connections of its own."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: dict[str, deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = defaultdict(deque)

    async def send(self, client: str, data: bytes, outcome: Outcome, due: float) -> None:
        """One request. Its latency counts from when it was due."""
        try:
            async with asyncio.timeout(30):
                reader, writer = await self._connection(client)
                writer.write(data)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
        except (OSError, asyncio.IncompleteReadError):
            outcome.failed += 1
            return
        if b" 200 " not in head[:16]:
            outcome.failed += 1
            writer.close()
            return
        outcome.latencies.append(perf_counter() - due)
        self._idle[client].append((reader, writer))

    async def _connection(self, client: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._idle[client]:
            return self._idle[client].pop()
        host, port = self._address.host, self._address.port
        return await asyncio.open_connection(host, port, local_addr=(client, 0))

    async def load(self, rate: float, seconds: float) -> Outcome:
        """Open loop: requests leave when they are due, answered or not."""
        outcome, draw = Outcome(), random.Random(7)
        begun = perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = begun + number / rate
                if (early := due - perf_counter()) > 0:
                    await asyncio.sleep(early)
                data = request(path=f"/{draw.choice(COSTS)}")
                group.create_task(self.send(draw.choice(CLIENTS), data, outcome, due))
        return outcome

    def close(self) -> None:
        """Every connection."""
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()


def algorithms(*, quick: bool) -> str:
    """A table for each fleet."""
    warm_s, measured_s = (2.0, 2.0) if quick else (3.0, 5.0)
    tables = []
    for fleet in FLEETS:
        outcomes = {name: uvloop.run(_one(fleet, name, warm_s, measured_s)) for name in ALGORITHMS}
        tables.append(_table(fleet, outcomes))
        print(tables[-1], flush=True)
        if fleet is FLEETS[1]:
            p99 = {name: percentile(outcomes[name].latencies, 0.99) for name in outcomes}
            ratio = p99["round-robin"] / p99["least-response-time"]
            what = "p99 of round robin to that of least response time, one server 5 times slower"
            tables.append(report.verdict(what, ratio, 3.0, at_least=True))
    return "\n\n".join(tables)


async def _one(fleet: Fleet, algorithm: str, warm_s: float, measured_s: float) -> Outcome:
    configuration = f'balancer.algorithm = "{algorithm}"\nbalancer.request_timeout = "60s"\n'
    with tempfile.TemporaryDirectory(prefix="outgrow-benchmark-") as folder:
        async with balanced(Path(folder), configuration, app=len(fleet.slower)) as it:
            _prepare(it, fleet)
            clients = Clients(it.address)
            await clients.load(fleet.rate, warm_s)
            it.shares()
            outcome = await clients.load(fleet.rate, measured_s)
            outcome.shares = list(it.shares().values())
            clients.close()
            return outcome


def _prepare(it: Balanced, fleet: Fleet) -> None:
    """The weights are what a person would write who knows how fast each server is."""
    for slower, upstream in zip(fleet.slower, it.upstreams.values(), strict=True):
        upstream.seconds, upstream.turn = UNIT_S * slower, asyncio.Semaphore(PLACES)
        upstream.cost = lambda path: float(path[1:])
    it.servers = [
        server._replace(weight=20 // slower) for server, slower in zip(it.servers, fleet.slower, strict=True)
    ]
    it.change()


def _table(fleet: Fleet, outcomes: Mapping[str, Outcome]) -> str:
    rows = [
        [
            name,
            *(f"{1000 * percentile(each.latencies, share):,.0f}" for share in (0.5, 0.99)),
            " / ".join(f"{share:.1%}" for share in each.shares),
            str(each.failed),
        ]
        for name, each in outcomes.items()
    ]
    head = [f"{fleet.name}, {fleet.rate:.0f}/s", "p50 ms", "p99 ms", "share of each server", "failed"]
    return report.table(head, rows)


# --- What it costs -----------------------------------------------------------------------------------


@dataclass
class Cost:
    """Round by round: microseconds of CPU a request, and p50 in milliseconds at half of the peak."""

    application: list[float] = field(default_factory=list)
    balancer: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)


def cost(*, quick: bool) -> str:
    """The table and its verdicts."""
    rounds, seconds = (1, 1.0) if quick else (3, 1.5)
    data = make(TINY if quick else FULL)
    databases = open_databases("sqlite")
    costs = {}
    try:
        asyncio.run(versions.load_all(databases.create, data, [EXAMPLE_OFF, CONVENTIONAL]))
        article = Request("article", "GET", f"/api/articles/{data.articles[0].slug}")
        with machine.pinned(machine.client_core()):
            for version in (CONVENTIONAL, EXAMPLE_OFF, EXAMPLE_ON):
                for requests in ([article], [Request("list", "GET", "/api/articles?limit=20")]):
                    name = f"{requests[0].kind}, {version.name}"
                    with versions.scratch() as directory:
                        application = version.application(databases.copy(version.schema), Path(directory))
                        with application:
                            costs[name] = uvloop.run(_cost(application, requests, rounds, seconds))
    finally:
        databases.close()
    return _cost_table(costs)


async def _cost(application: Application, requests: Sequence[Request], rounds: int, seconds: float) -> Cost:
    found = Cost()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="outgrow-benchmark-") as folder:
        supervisor = Supervisor(Logs(Path(folder) / "logs"), "benchmark")
        topology = parse(
            f'application = {{ host = "127.0.0.1", port = {port} }}\n'
            'balancer.health = { check = "shallow", profile = "usual" }\n'
        )
        server = Server("app-1", Address("127.0.0.1", application.port))
        engine = Envoy(topology, Placement(Path(folder), Path(folder), "127.0.0.1"), [server])
        try:
            with machine.pinned(machine.server_core()):
                await supervisor.start(engine.workloads())
            pid = supervisor.nodes["balancer-1"].pid
            assert pid is not None
            await closed_loop(application.port, Session(requests, {}), seconds)
            await closed_loop(port, Session(requests, {}), seconds)
            for _ in range(rounds):
                await _round(application, port, pid, Session(requests, {}), seconds, found)
        finally:
            await supervisor.stop()
    return found


async def _round(
    application: Application, port: int, pid: int, session: Session, seconds: float, found: Cost
) -> None:
    before, balancer = application.cpu_seconds(), machine.cpu_seconds([pid])
    peak = await closed_loop(port, session, seconds)
    found.application.append(1e6 * (application.cpu_seconds() - before) / peak.requests)
    found.balancer.append(1e6 * (machine.cpu_seconds([pid]) - balancer) / peak.requests)
    for at, into in ((application.port, found.direct), (port, found.through)):
        load = await open_loop(at, session, peak.rate / 2, seconds)
        into.append(1000 * percentile(load.latencies, 0.5))


def _cost_table(costs: Mapping[str, Cost]) -> str:
    rows = [
        [
            name,
            report.spread(each.application, ".0f"),
            report.spread(each.balancer, ".0f"),
            report.spread([b / a for a, b in zip(each.application, each.balancer, strict=True)]),
            report.spread(each.direct),
            report.spread([b - a for a, b in zip(each.direct, each.through, strict=True)]),
        ]
        for name, each in costs.items()
    ]
    head = [
        "request",
        "CPU us, application",
        "CPU us, Envoy",
        "ratio",
        "p50 ms, direct",
        "p50 ms that it adds",
    ]
    added = max(
        report.median([b - a for a, b in zip(each.direct, each.through, strict=True)])
        for each in costs.values()
    )
    shares = [report.median(each.balancer) / report.median(each.application) for each in costs.values()]
    lines = [
        report.verdict("p50 that Envoy adds at half load", added, 1.0, at_least=False, unit=" ms"),
        report.verdict(
            "CPU of Envoy to that of the application, the dearest request", min(shares), 0.2, at_least=False
        ),
        report.verdict(
            "CPU of Envoy to that of the application, the cheapest request", max(shares), 0.2, at_least=False
        ),
    ]
    return report.table(head, rows) + "\n\n" + "\n".join(lines)


PARTS = {"algorithms": algorithms, "cost": cost}


def main() -> None:
    """Run what is asked for, by default both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balancer", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PARTS, []], default=[], metavar="PART")
    parser.add_argument("--quick", action="store_true", help="short runs, to see that everything works")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the servers end as well
    for name in arguments.names or PARTS:
        text = PARTS[name](quick=arguments.quick)
        print(text, flush=True)
        if arguments.write:
            report.write(f"balancer {name}", text, quick=arguments.quick)


if __name__ == "__main__":
    main()

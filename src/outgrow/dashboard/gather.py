"""Looks at a fleet once a second: its status, every process's figures, this machine.

supervisor (control socket) ─┐
processes (own paths) ───────┤
balancers, shared cache ─────┼─► look ─► history (file), slow requests, events ─► snapshot, when asked for
/proc ───────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import reduce
from pathlib import Path

from outgrow import cluster, endpoints
from outgrow.advisor import measures
from outgrow.advisor.history import History
from outgrow.advisor.machine import Machine, Meter
from outgrow.advisor.measures import Tally
from outgrow.cluster import NodeStatus, Status
from outgrow.cluster.state import State
from outgrow.dashboard import cached, growth, replicas, servers, tables
from outgrow.dashboard.balancers import Balancers
from outgrow.dashboard.drawing import Front, draw
from outgrow.dashboard.events import Events, Watch
from outgrow.dashboard.health import judge
from outgrow.dashboard.process import Process, look_at_all
from outgrow.dashboard.requests import Requests
from outgrow.dashboard.shared_cache import SharedCache
from outgrow.dashboard.snapshot import Action, Node, Replica, Server, Snapshot, Traffic
from outgrow.dashboard.snapshot import Requests as RequestCounts
from outgrow.dashboard.usage import Usage
from outgrow.endpoints import Endpoints
from outgrow.errors import OutgrowError

EVERY_S = 1.0
AFTER_S = 0.03
"""A look begins so long after the second has: a sleep that ends early must not fall into the last one."""

SHOWN_S = 5
"""The figures of the present are those of so many seconds: at few requests one second says little."""

logger = logging.getLogger("outgrow.dashboard")


class Gatherer:
    """What is known of the fleet in `directory`. `looked` is called after each look."""

    def __init__(self, directory: Path, *, looked: Callable[[], None] = lambda: None) -> None:
        self._directory = directory
        self._place = State(directory).placement()
        self._looked = looked
        self._place.data.mkdir(parents=True, exist_ok=True)
        self.history = History(self._place.data)
        self.requests = Requests()
        self.events = Events(self._place.data / "events.jsonl")
        self._watch = Watch(self.events)
        self._growth = growth.Watch(self._place.state / "growth", self.events)
        self._machine_meter = Meter(self._place.data)
        self._machine: Machine | None = None
        self._usage = Usage()
        self._status: Status | None = None
        self._answers = False
        self._document: Endpoints | None = None
        self._processes: dict[str, Process] = {}
        self._balancers = Balancers(self._place.state / "balancer", looks=SHOWN_S + 1)
        self.cache = SharedCache(self._place, looks=SHOWN_S + 1)
        self._transitions = servers.Watch(self.events)
        self._servers: list[Server] = []
        self._failovers = replicas.Watch(self.events)
        self._replicas: list[Replica] = []
        self._tallies: deque[dict[str, Tally]] = deque(maxlen=SHOWN_S)
        self._latest: dict[str, float] = {}
        self._at = 0.0

    async def run(self) -> None:
        """Look once a second until cancelled, at its beginning: so no second has two looks, or none."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("this second is missing")
            self._looked()
            await asyncio.sleep(EVERY_S - (time.time() - AFTER_S) % EVERY_S)

    async def look(self) -> None:
        """One look."""
        now = time.time()
        await self._look_at_fleet()
        tallies: dict[str, Tally] = {}
        told_all, *_ = await asyncio.gather(
            look_at_all(list(self._processes.values())),
            self._balancers.look(self._running("balancer")),
            self.cache.look(self._cache_urls()),
        )
        for process, tally, told in told_all:
            self.requests.add(process.node, told)
            if tally is not None:
                tallies[process.node] = tally
        self._tallies.append(tallies)
        self._growth.look()
        self._machine = self._machine_meter.look()
        self._usage.look(self._status.nodes if self._status is not None else ())
        self._servers = self._look_at_servers()
        self._transitions.look(now, self._servers)
        self._look_at_replicas()
        self._at, self._latest = now, self._series(tallies)
        try:
            self.history.append(now, self._latest)
        except OSError as error:
            logger.warning("the history of this second is lost: %s", error)

    @property
    def status(self) -> Status | None:
        """What the fleet's supervisor said last; None while it does not answer."""
        return self._status if self._answers else None

    def close(self) -> None:
        """Let go of everything."""
        for process in self._processes.values():
            process.close()
        self.history.close()

    async def _look_at_fleet(self) -> None:
        try:
            status = await cluster.status(self._directory, measured=False)
        except (OutgrowError, OSError, TimeoutError):
            self._answers = False
            return
        self._answers = True
        changed = self._status is None or self._status.epoch != status.epoch
        self._status = status
        self._watch.look(time.time(), status)
        if changed or self._document is None:
            with contextlib.suppress(OutgrowError):  # it is being replaced: the next look finds it
                self._document = endpoints.read(self._place.endpoints)
        self._follow(status)

    def _running(self, tier: str) -> list[str]:
        """Its nodes that are ready."""
        nodes = self._status.nodes if self._status is not None else ()
        return [node.name for node in nodes if node.tier == tier and node.state == "ready"]

    def _cache_urls(self) -> tuple[str, ...]:
        """Of the shared cache's nodes that the fleet runs; none while it does not."""
        there = self._document is not None and bool(self._running("cache"))
        return self._document.cache.urls if there and self._document is not None else ()

    def _look_at_servers(self) -> list[Server]:
        """Each server over the last few seconds."""
        return servers.servers(
            self._nodes(),
            self._recent(),
            self._under_way(),
            self._balancers.servers(),
            balancers_answer=self._balancers.answer,
        )

    def _look_at_replicas(self) -> None:
        """Each node of the database over the last few seconds, and who became the primary."""
        if self._status is not None:
            whole = reduce(Tally.plus, self._recent().values(), Tally())
            self._replicas = replicas.replicas(self._status.nodes, whole)
            self._failovers.look(self._status.failovers)

    def _follow(self, status: Status) -> None:
        """Ask every process of the application that runs, and none that does not."""
        wanted = {
            node.name: node.own
            for node in status.nodes
            if node.tier == "application" and node.own and node.state in ("ready", "stopping")
        }
        moved = [
            name for name, each in self._processes.items() if wanted.get(name, each.address) != each.address
        ]
        for name in moved:
            self._processes.pop(name).close()
        for name in self._processes.keys() - wanted.keys():
            self._processes[name].close()
            if all(node.name != name for node in status.nodes):
                del self._processes[name]
        for name, address in wanted.items():
            if name not in self._processes:
                host, _, port = address.rpartition(":")
                self._processes[name] = Process(name, host, int(port))

    def _series(self, tallies: dict[str, Tally]) -> dict[str, float]:
        """The figures of this second for the history; what is unknown is left out."""
        found: dict[str, float | None] = dict(self._usage.series())
        if self._machine is not None:
            found |= _machine_series(self._machine)
        if tallies:
            found |= _traffic_series(reduce(Tally.plus, tallies.values()))
            found["in_flight"] = self._in_flight()
        found |= servers.series(self._servers)
        found |= replicas.series(self._replicas)
        return {name: value for name, value in found.items() if value is not None}

    def _under_way(self) -> dict[str, float]:
        """Requests that each process is working on; the processes' own paths do not count."""
        name = "outgrow_http_requests_in_flight"
        return {
            each.node: measures.single(each.figures, name)
            for each in self._processes.values()
            if each.figures
        }

    def _in_flight(self) -> float:
        return sum(self._under_way().values())

    def _nodes(self) -> list[Node]:
        """All but jobs that have done their work."""
        nodes = self._status.nodes if self._status is not None else ()
        return [self._node(node) for node in nodes if node.kind == "service" or node.state != "done"]

    def _front(self) -> Front:
        names = self._running("balancer")
        return Front(
            {server.name: server for server in self._servers},
            {name: self._balancers.rate(name) for name in names},
            {name: self._balancers.connections(name) for name in names},
            {each.name: each for each in self._replicas},
            self._status.backups if self._status is not None else None,
            self.cache.now,
            self.cache.evicted,
        )

    def snapshot(self, action: Action | None = None) -> Snapshot | None:
        """What is known now; None before the first look at a fleet. `action`: what the page asked for."""
        status = self._status
        if status is None:
            return None
        from outgrow import stages

        stage = stages.find(status.stage)
        per_node = self._recent()
        whole = reduce(Tally.plus, per_node.values(), Tally())
        nodes = self._nodes()
        minutes = list(self._minutes())
        return Snapshot(
            at=self._at,
            application=status.application,
            stage=status.stage,
            stage_number=stage.number,
            stage_title=stage.title,
            epoch=status.epoch,
            url=status.url,
            since=status.since,
            answers=self._answers,
            health=judge(status, self._answers, self._processes),
            growth=self._growth.now,
            action=action,
            traffic=self._traffic(whole),
            machine=self._machine,
            nodes=nodes,
            servers=self._servers,
            replicas=self._replicas,
            failovers=list(status.failovers),
            drawing=draw(nodes, self._front(), self._document, per_node, whole, self._database_size()),
            routes=tables.routes(minutes),
            queries=tables.queries(minutes),
            caches=cached.caches(minutes, [each.keys for each in self._processes.values()], self.cache.now),
            requests=RequestCounts(len(self.requests), self.requests.failed, self.requests.newest),
            newest_event=self.events.newest,
            latest=self._latest,
        )

    def _recent(self) -> dict[str, Tally]:
        """Each process over the last few seconds."""
        found: dict[str, Tally] = {}
        for tallies in self._tallies:
            for name, tally in tallies.items():
                found[name] = found[name].then(tally) if name in found else tally
        return found

    def _minutes(self) -> list[tables.Minute]:
        found = []
        for process in self._processes.values():
            before = process.before()
            if process.figures is not None and before is not None:
                found.append(tables.Minute(process.figures, *before))
        return found

    def _traffic(self, whole: Tally) -> Traffic:
        p50, p95, p99 = (_ms(whole.requests.quantile(share)) for share in (0.5, 0.95, 0.99))
        share = whole.errors / whole.rate if whole.rate else 0.0
        return Traffic(whole.rate, p50, p95, p99, whole.errors, min(1.0, share), self._in_flight())

    def _node(self, node: NodeStatus) -> Node:
        cpu, memory = self._usage.of(node.name)
        return Node(
            node.name,
            node.tier,
            node.kind,
            node.state,
            node.text,
            node.pid,
            node.address,
            node.since,
            node.restarts,
            cpu,
            memory,
        )

    def _database_size(self) -> int | None:
        """Bytes of a SQLite database with its write-ahead log."""
        if self._document is None or self._document.database.engine != "sqlite":
            return None
        path = self._document.database.shards[0].nodes[0].url.removeprefix("sqlite:///")
        sizes = [_size(Path(path + suffix)) for suffix in ("", "-wal")]
        return sum(sizes) or None


def _traffic_series(tally: Tally) -> dict[str, float | None]:
    seconds = tally.seconds or 1.0
    return {
        "rate": tally.rate,
        "errors": tally.errors,
        "p50": _ms(tally.requests.quantile(0.5)),
        "p95": _ms(tally.requests.quantile(0.95)),
        "p99": _ms(tally.requests.quantile(0.99)),
        "queries": tally.queries.count / seconds,
        "query_p99": _ms(tally.queries.quantile(0.99)),
        "wait_p99": _ms(tally.waits.quantile(0.99)),
        "writes": tally.writes / seconds,
        "hits": tally.hit_share,
        "database_time": tally.queries.sum / tally.requests.sum if tally.requests.sum else None,
        "tasks": sum(tally.tasks.values()) / seconds,
    }


def _machine_series(machine: Machine) -> dict[str, float | None]:
    return {
        "cpu": machine.cpu,
        "load": machine.load,
        "memory": float(machine.memory_used),
        "disk_read": machine.disk_read,
        "disk_written": machine.disk_written,
        "disk_used": float(machine.disk_used),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

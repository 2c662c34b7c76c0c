"""`python -m outgrow.growth.autoscaler`: more or fewer application servers, as [autoscale] says.

    once a second:  fleet (topology, nodes) ─► figures of each process ─► policy ─► lock ─► fleet ─► audit

A process of its own: what goes wrong here leaves the fleet as it is. It holds the same lock as a growth,
a deploy and `outgrow scale`, and waits while one of those does. outgrow.toml stays as it is; the fleet
remembers how many servers it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from outgrow.cluster import control, figures, measure
from outgrow.cluster.autoscale import Autoscaler, Decision, Load, Look
from outgrow.cluster.control import Request
from outgrow.cluster.figures import Figures
from outgrow.cluster.state import State
from outgrow.cluster.status import Autoscaling, NodeStatus, Status
from outgrow.errors import BeingChanged, FleetNotRunning, OutgrowError
from outgrow.growth import journal as journals
from outgrow.growth.journal import Journal
from outgrow.topology import Topology

EVERY_S = 1.0
LOOKS = 6
"""A figure is that of the last five seconds: the kernel counts CPU in hundredths of a second."""

KNOWN_AFTER = 4
"""Fewer looks at a process say little of its CPU."""

WARM_S = 3.0
"""What a server does at first, it does once."""

AGAIN_AFTER_S, AGAIN_AFTER_S_MAX = 10.0, 300.0
"""After a failure to scale; doubled with each, so that servers that cannot start are not tried all day."""

_SERVER = re.compile(r"(app-\d+)(?:\.\d+)?")
logger = logging.getLogger("outgrow.autoscaler")


class Seen(NamedTuple):
    """One look at one process."""

    at: float
    cpu_s: float | None
    figures: Figures | None


class Watched:
    """The last looks at one process."""

    def __init__(self) -> None:
        self._looks: deque[Seen] = deque(maxlen=LOOKS)

    def add(self, seen: Seen) -> None:
        """The newest."""
        self._looks.append(seen)

    @property
    def cores(self) -> float | None:
        """CPU that it uses, in cores."""
        if len(self._looks) < KNOWN_AFTER:
            return None
        first, last = self._looks[0], self._looks[-1]
        if first.cpu_s is None or last.cpu_s is None:
            return None
        return max(0.0, last.cpu_s - first.cpu_s) / (last.at - first.at)

    @property
    def in_flight(self) -> float | None:
        """Requests under way, on average; None when the last look found nothing."""
        known = [seen.figures.in_flight for seen in self._looks if seen.figures is not None]
        return sum(known) / len(known) if known and self._looks[-1].figures is not None else None

    @property
    def lately(self) -> Figures | None:
        """What it has answered since the oldest look."""
        known = [seen.figures for seen in self._looks if seen.figures is not None]
        return known[-1].since(known[0]) if len(known) > 1 else None


class Eyes:
    """Looks at every server of the application's pool."""

    def __init__(self) -> None:
        self._processes: dict[int, Watched] = {}

    async def look(self, status: Status, cores: float) -> Look:
        """All servers now; those that are not ready, or have just become so, without figures.

        `cores` is how many each has.
        """
        servers = _servers(status)
        nodes = [node for each in servers.values() for node in each if node.pid and node.state == "ready"]
        found = await asyncio.gather(*(self._see(node) for node in nodes))
        pids = [node.pid for node in nodes if node.pid is not None]
        known = {pid: self._processes.get(pid, Watched()) for pid in pids}
        for pid, seen in zip(pids, found, strict=True):
            known[pid].add(seen)
        self._processes = known
        lately = figures.together(each.lately for each in known.values() if each.lately is not None)
        loads = {name: self._load(each, cores) for name, each in servers.items()}
        return Look(time.monotonic(), loads, lately.quantile(0.95))

    async def _see(self, node: NodeStatus) -> Seen:
        assert node.pid is not None
        host, _, port = (node.own or "").rpartition(":")
        told = await figures.look(host, int(port)) if port else None
        return Seen(time.monotonic(), measure.cpu_seconds(node.pid), told)

    def _load(self, nodes: list[NodeStatus], cores: float) -> Load:
        ready = [node for node in nodes if node.state == "ready" and time.time() - node.since > WARM_S]
        watched = [self._processes[node.pid] for node in ready if node.pid in self._processes]
        if len(watched) < len(nodes):
            return Load()
        cpu, under_way = _sum(each.cores for each in watched), _sum(each.in_flight for each in watched)
        return Load(None if cpu is None else min(1.0, cpu / cores), under_way)


def _servers(status: Status) -> dict[str, list[NodeStatus]]:
    found: dict[str, list[NodeStatus]] = {}
    for node in status.nodes:
        if node.tier == "application" and (name := _SERVER.fullmatch(node.name)):
            found.setdefault(name[1], []).append(node)
    return found


def _sum(values: Iterable[float | None]) -> float | None:
    """None when one is not known."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


class Controller:
    """Decides and acts for the fleet in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = State(directory)
        self._eyes = Eyes()
        self._policy: Autoscaler | None = None
        self._shown = Autoscaling()
        self._failures = 0
        self._not_before = 0.0

    async def run(self) -> None:
        """Look once a second until cancelled. One that fails is told and passed over."""
        while True:
            try:
                await self.turn()
            except (OutgrowError, OSError, TimeoutError) as error:
                logger.warning("this second is missing: %s", error)
            await asyncio.sleep(EVERY_S)

    async def turn(self) -> None:
        """Look, decide, and act if it is to be. Raises OutgrowError, OSError or TimeoutError."""
        topology = await control.topology(self._directory)
        if not topology.autoscale.on or topology.balancer.engine is None:
            self._show(Autoscaling(reason="without a balancer there is one server"))
            return
        if self._policy is None or self._policy.settings != topology.autoscale:
            self._policy = Autoscaler(topology.autoscale)
        status = await control.status(self._directory, measured=False)
        look = await self._eyes.look(status, _cores(topology, limited=not status.warnings))
        if not look.servers:
            return
        decision = self._policy.decide(look)
        self._show(_seen(topology, look, decision, self._shown))
        if decision.wanted != len(look.servers) and look.at >= self._not_before:
            await self._scale(len(look.servers), decision, self._policy)

    async def _scale(self, count: int, decision: Decision, policy: Autoscaler) -> None:
        """Through the same lock as everybody; who holds it goes first."""
        what = f"autoscale: {count} -> {decision.wanted}, {decision.reason}"
        folder, began = self._state.growth, time.time()
        with contextlib.suppress(BeingChanged), journals.locked(folder, what):
            if Journal(folder).open:
                return
            try:
                request = Request("count", servers=decision.wanted)
                await control.change(self._directory, request, tell=lambda change: None)
            except FleetNotRunning:
                return
            except OutgrowError as error:
                self._failures += 1
                wait_s = min(AGAIN_AFTER_S_MAX, AGAIN_AFTER_S * 2 ** (self._failures - 1))
                self._not_before = time.monotonic() + wait_s
                journals.audit(folder, began, what, "", f"failed: {error.message}")
                raise
            self._failures = 0
            policy.scaled(time.monotonic(), count, decision.wanted)
            journals.audit(folder, began, what, str(decision.wanted), "done")
            self._show(replace(self._shown, last=what.partition(": ")[2], last_at=time.time()))

    def _show(self, now: Autoscaling) -> None:
        self._shown = now
        self._state.show(now)


def _cores(topology: Topology, *, limited: bool) -> float:
    application = topology.application
    given = application.cpu or topology.fleet.host_cpu if limited else None
    return given or float(application.workers)


def _seen(topology: Topology, look: Look, decision: Decision, before: Autoscaling) -> Autoscaling:
    settings = topology.autoscale
    cpu = [load.cpu for load in look.servers.values() if load.cpu is not None]
    under_way = [load.in_flight for load in look.servers.values() if load.in_flight is not None]
    now = {
        "cpu": sum(cpu) / len(cpu) if cpu else None,
        "in_flight": sum(under_way) / len(under_way) if under_way else None,
        "p95": look.p95,
    }
    targets = {"cpu": settings.cpu, "in_flight": settings.in_flight, "p95": settings.p95}
    return replace(
        before,
        at=time.time(),
        servers=len(look.servers),
        minimum=settings.minimum,
        maximum=settings.maximum,
        targets={name: target for name, target in targets.items() if target is not None},
        now=now,
        wanted=decision.wanted,
        reason=decision.reason,
    )


def main() -> int:
    """Watch the fleet in OUTGROW_DIRECTORY until a signal; returns the exit code."""
    directory = os.environ.get("OUTGROW_DIRECTORY")
    if directory is None:
        sys.stderr.write("OUTGROW_DIRECTORY is not set: `outgrow up` starts the autoscaler\n")
        return 2
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    asyncio.run(Controller(Path(directory)).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Watches a fleet during a drill: which process runs, and what each balancer thinks of each server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec

from outgrow import cluster
from outgrow.chaos.history import Happening, Kind, Sample
from outgrow.cluster.state import State
from outgrow.engines.envoy import admin as envoy_admin
from outgrow.engines.envoy.envoy import ADMIN
from outgrow.errors import FleetError

LOOK_S = 0.1
BAD = ("failed_active_health_check", "failed_outlier_check", "failed_active_degraded_check")


class Watch:
    """`now` is the clock of the drill. `changed` hears of what happens, as it happens."""

    def __init__(
        self, directory: Path, now: Callable[[], float], changed: Callable[[Happening], None]
    ) -> None:
        self.happenings: list[Happening] = []
        self.samples: list[Sample] = []
        self._directory = directory
        self._balancers = State(directory).folder / "balancer"
        self._now = now
        self._changed = changed
        self._nodes: dict[str, tuple[str, int | None]] = {}
        self._healthy: dict[tuple[str, str], bool] = {}

    def note(self, kind: Kind, node: str, text: str, at: float | None = None) -> float:
        """This has happened, now unless it is said when."""
        happening = Happening(round(self._now() if at is None else at, 3), kind, node, text)
        self.happenings.append(happening)
        self._changed(happening)
        return happening.at

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.gather(self._look_at_nodes(), self._look_at_balancers(), asyncio.sleep(LOOK_S))

    async def _look_at_nodes(self) -> None:
        try:
            nodes = (await cluster.status(self._directory, measured=False)).nodes
            seen: dict[str, tuple[str, int | None]] = {each.name: (each.state, each.pid) for each in nodes}
            seen["supervisor"] = ("ready", None)
        except (FleetError, TimeoutError):
            seen = {**self._nodes, "supervisor": ("gone", None)}
        for name in sorted({*self._nodes, *seen}):
            before, after = self._nodes.get(name), seen.get(name)
            if self._nodes and before != after:
                self.note("node", name, _said(before, after))
        self._nodes = seen

    async def _look_at_balancers(self) -> None:
        for folder in await asyncio.to_thread(lambda: sorted(self._balancers.glob("*"))):
            with contextlib.suppress(OSError, HTTPException, msgspec.DecodeError):
                body = await asyncio.to_thread(envoy_admin.ask, folder / ADMIN, "/clusters?format=json")
                at = round(self._now(), 3)
                for sample in samples(at, folder.name, msgspec.json.decode(body)):
                    self._take(sample)

    def _take(self, sample: Sample) -> None:
        self.samples.append(sample)
        pair = (sample.balancer, sample.server)
        if self._healthy.get(pair, sample.healthy) != sample.healthy:
            what: Kind = "in" if sample.healthy else "out"
            self.note(what, sample.server, f"{what} at {sample.balancer}")
        self._healthy[pair] = sample.healthy


def samples(at: float, balancer: str, told: dict[str, Any]) -> Iterator[Sample]:
    """What Envoy's /clusters says of every server."""
    for pool in told.get("cluster_statuses", ()):
        for host in pool.get("host_statuses", ()):
            if "hostname" in host:
                health = host.get("health_status", {})
                counts = {each["name"]: int(each.get("value", 0)) for each in host.get("stats", ())}
                healthy = not any(health.get(each) for each in BAD)
                yield Sample(at, balancer, host["hostname"], counts.get("rq_total", 0), healthy)


def _said(before: tuple[str, int | None] | None, after: tuple[str, int | None] | None) -> str:
    if after is None:
        return "is gone"
    if before is not None and before[0] == after[0]:
        return f"is {after[0]}, as another process"
    return f"is {after[0]}"

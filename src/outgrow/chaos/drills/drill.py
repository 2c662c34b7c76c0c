"""What a drill is: it hurts a fleet under load on purpose, and says what must hold nevertheless."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from outgrow.chaos import verdict
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.engines.envoy.clusters import CHECKS
from outgrow.load.profile import Scenario
from outgrow.topology import Topology

SLACK_S = 2.0
"""For what comes beside the checks themselves: they are spread, and we look ten times a second."""


class Drill(Protocol):
    """One scenario. `refuses` says what a topology lacks, and `run` does it within the load.

    `verdict` looks at the history alone, and names every promise, kept or not.
    """

    name: str
    shows: str
    needs: str
    does: str

    def refuses(self, topology: Topology) -> str | None: ...
    async def run(self, scene: Scene) -> None: ...
    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]: ...


@runtime_checkable
class OwnLoad(Protocol):
    """A drill that needs more of the load than the others: `load` adds it, or raises Misuse."""

    def load(self, scenario: Scenario) -> Scenario: ...


def several_servers(topology: Topology) -> str | None:
    """What is lacking where not several servers are behind a balancer that reads HTTP."""
    if topology.balancer.engine is None or topology.balancer.layer != 7:
        return "a balancer that reads HTTP: `outgrow grow load-balancer`"
    if topology.application.count < 2:
        return "at least two application servers: `outgrow scale app=2`"
    return None


def own_postgres(topology: Topology) -> str | None:
    """What is lacking where the fleet does not run the PostgreSQL itself."""
    if topology.database.engine != "postgres" or topology.database.url is not None:
        return "a PostgreSQL that the fleet itself runs"
    return None


def out_s(topology: Topology) -> float:
    """Within how many seconds the health checks have a server out that does not answer."""
    interval, timeout, failures, _ = _checks(topology)
    return failures * (interval + timeout) + SLACK_S


def in_s(topology: Topology) -> float:
    """Within how many seconds they have it in again."""
    interval, timeout, _, successes = _checks(topology)
    return successes * interval + interval + timeout + SLACK_S


def _checks(topology: Topology) -> tuple[float, float, int, int]:
    health = topology.balancer.health
    usual = CHECKS[health.profile]
    return (
        health.interval or usual["interval"],
        health.timeout or usual["timeout"],
        int(health.failures or usual["failures"]),
        int(health.successes or usual["successes"]),
    )


def nothing_is_lost(history: History) -> Iterator[Finding]:
    """What holds in every drill: of data, and of what users see."""
    yield verdict.lost(history)
    yield verdict.repeated(history)
    yield verdict.stale(history)

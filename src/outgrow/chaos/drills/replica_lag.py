"""Every replica falls behind: it receives the log, and applies nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import hosts, verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.faults.pause import Pause
from outgrow.chaos.history import History
from outgrow.chaos.replicas import WATCHED_S, replicated, roles
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

SLACK_S = 3.0


class ReplicaLag:
    """First who has just written reads elsewhere; after `database.max_lag` nobody reads there any more."""

    name = "replica-lag"
    shows = "every replica falls behind, further than it may"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "SIGSTOP of the process that applies the log, on every replica, for longer than database.max_lag"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """Then they catch up."""
        replicas = (await roles(scene)).replicas
        stopped = [hosts.named(each, hosts.RECOVERY) for each in replicas]
        names = ", ".join(each.name for each in replicas)
        async with scene.fault(Pause(f"what applies the log on {names}", stopped), names):
            await scene.rest(scene.topology.database.max_lag + SLACK_S)
        await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Reads move to the primary, and nobody sees the past."""
        yield verdict.reads(history, "No read fails: the primary takes those that no replica may answer.")
        yield verdict.no_write_fails(history)
        yield from nothing_is_lost(history)

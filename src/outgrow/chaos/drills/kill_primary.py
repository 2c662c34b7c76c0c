"""kill -9 of the primary's PostgreSQL, once or `--events` times in a row."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import hosts
from outgrow.chaos.faults.fault import Fault
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.replicas import lose_primary, replicated, taken_over
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.cluster import NodeStatus
from outgrow.topology import Topology


class KillPrimary:
    """A replica takes over, and the old primary comes back as one."""

    name = "kill-primary"
    shows = "the primary's PostgreSQL dies, and a replica takes over"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "SIGKILL of the first process of the primary's PostgreSQL, once or as often as --events says"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """And wait until everything is in order again."""
        await lose_primary(scene, _kill)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Writes wait for a moment, reads do not, and nothing is lost that was promised."""
        yield from taken_over(history, topology)


def _kill(primary: NodeStatus) -> Fault:
    return Kill(f"PostgreSQL on {primary.name}", [hosts.named(primary, hosts.POSTMASTER)])

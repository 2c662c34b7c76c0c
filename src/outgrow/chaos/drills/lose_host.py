"""The whole host of the primary is gone: PostgreSQL, Patroni and all, at once."""

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


class LoseHost:
    """Its lease would last for 20 seconds; the supervisor proves that it is dead, and cuts it short."""

    name = "lose-host"
    shows = "the host of the primary is gone, with everything on it"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "SIGKILL of the first process in the primary's host, with which the kernel ends all others"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """And wait until everything is in order again."""
        await lose_primary(scene, _kill)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """As when PostgreSQL alone dies."""
        yield from taken_over(history, topology)


def _kill(primary: NodeStatus) -> Fault:
    return Kill(f"the host {primary.name}", hosts.inside(primary)[1:2])

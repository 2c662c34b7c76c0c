"""The primary's host is cut off from etcd and from the other nodes; applications still reach it."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import hosts
from outgrow.chaos.faults.cut import Cut
from outgrow.chaos.history import History
from outgrow.chaos.replicas import (
    LEASE_S,
    TAKEOVER_S,
    WATCHED_S,
    WHOLE_WITHIN_S,
    replicated,
    roles,
    taken_over,
    until_taken_over,
    until_whole,
)
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.engines.patroni.patroni import REST
from outgrow.topology import Topology

HEARD_S = 4.0
"""After retry_timeout (3 s) without etcd it asks its neighbours whether it may go on. Should they hear that,
and it is their answer that is lost, they wait for it for a whole lease from then on (failsafe mode)."""


class CutPrimary:
    """It must stop accepting writes before another may begin."""

    name = "cut-primary"
    shows = "the primary is on the wrong side of a partition, and applications still reach it"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "shuts down the connections of the primary's host to etcd and to the other nodes, for a while"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """Until another has taken over, and a little longer."""
        primary, replicas = await roles(scene)
        others = [(str(each.address).rpartition(":")[0], REST) for each in replicas]
        targets = [*await scene.addresses("consensus"), *others]
        says = f"{primary.name} is cut off from etcd and the other nodes"
        cut = Cut(says, [hosts.named(primary, hosts.PATRONI)], targets)
        async with scene.fault(cut, primary.name):
            await until_taken_over(scene, primary.name, WHOLE_WITHIN_S)
            await scene.rest(WATCHED_S)
        await until_whole(scene, primary.name)
        await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Reads go on, writes wait for the lease, and what is acknowledged is there."""
        yield from taken_over(history, topology, within_s=LEASE_S + HEARD_S + TAKEOVER_S)

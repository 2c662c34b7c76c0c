"""The whole host of a replica is gone."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import hosts, takeover
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.replicas import AGAIN, RETURN_S, WATCHED_S, replicated, roles, until_whole
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology


class KillReplica:
    """Its reads go elsewhere, and commits that wait for it go on."""

    name = "kill-replica"
    shows = "a replica is gone, with everything on its host"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "SIGKILL of the first process in a replica's host, once or as often as --events says"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """Each time when everything is in order again."""
        for _ in range(scene.events(1)):
            replica = (await roles(scene)).replicas[-1]
            kill = Kill(f"the host {replica.name}", hosts.inside(replica)[1:2])
            async with scene.fault(kill, replica.name):
                await scene.until_ready(replica.name, replica.pid, RETURN_S)
            await until_whole(scene, replica.name)
            await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Nobody notices but whoever was just reading there."""
        faults = history.moments("fault")
        yield takeover.reads_go_on(history, faults)
        yield takeover.writes_again(history, faults, within_s=topology.database.sync_timeout)
        yield takeover.returns(history, AGAIN, within_s=RETURN_S)
        yield from nothing_is_lost(history)

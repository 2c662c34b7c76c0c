"""etcd as a whole does not answer: nobody can be elected, and the primary has to know that it may go on."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.faults.pause import Pause
from outgrow.chaos.history import History
from outgrow.chaos.replicas import WATCHED_S, replicated, until_whole
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note
from outgrow.topology import Topology

GONE_FOR_S = 15.0
"""Without failsafe mode the primary would have stepped back after 3 seconds."""


class LoseEtcd:
    """As long as the primary reaches every other node, none of them can have become one."""

    name = "lose-etcd"
    shows = "etcd is gone as a whole, and the nodes of the database are not"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "SIGSTOP of every node of etcd for a quarter of a minute, then SIGCONT"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """Nothing is to happen."""
        pids = [each.pid for each in await scene.nodes("consensus") if each.pid is not None]
        notes = [Note(pid, orphans.start_time(pid) or 0) for pid in pids]
        async with scene.fault(Pause("etcd", notes), "etcd"):
            await scene.rest(GONE_FOR_S)
        await until_whole(scene, "etcd", "every node is in order")
        await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Nobody notices."""
        yield verdict.reads(history)
        yield verdict.no_write_fails(history)
        yield from nothing_is_lost(history)

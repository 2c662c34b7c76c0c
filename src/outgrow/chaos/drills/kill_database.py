"""kill -9 of PostgreSQL, which every server shares."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost, own_postgres
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

SERVES_WITHIN_S = 15.0
WATCHED_S = 8.0


class KillDatabase:
    """It recovers from its log; the servers find it again by themselves."""

    name = "kill-database"
    shows = "the database dies and comes back"
    needs = "stage 2 or further, with the fleet's own PostgreSQL"
    does = "SIGKILL of PostgreSQL's first process, whose others end with it"

    def refuses(self, topology: Topology) -> str | None:
        if topology.database.copies:
            return "a PostgreSQL without replicas: the drill kill-primary is for those that have some"
        return own_postgres(topology)

    async def run(self, scene: Scene) -> None:
        """Kill it, wait until it has recovered."""
        processes = await scene.processes("postgres")
        async with scene.fault(Kill("postgres", processes), "postgres"):
            await scene.until_ready("postgres", processes[0].pid, SERVES_WITHIN_S)
        await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """What was acknowledged is there, and it serves again without a hand."""
        (fault,) = history.moments("fault")
        yield verdict.serves_again(history, fault, within_s=SERVES_WITHIN_S)
        yield from nothing_is_lost(history)

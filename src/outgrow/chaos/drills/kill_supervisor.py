"""kill -9 of the supervisor, and `outgrow up` afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow import cluster
from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note
from outgrow.topology import Topology

ALONE_FOR_S = 4.0
SERVES_WITHIN_S = 30.0
WATCHED_S = 5.0


class KillSupervisor:
    """What it has started serves on without it. The next start ends what is left, and begins again."""

    name = "kill-supervisor"
    shows = "the supervisor dies, and the fleet is started again"
    needs = "any stage; afterwards the fleet runs in the background"
    does = "SIGKILL of the supervisor; after some seconds, what `outgrow up --detach` does"

    def refuses(self, topology: Topology) -> str | None:
        return None

    async def run(self, scene: Scene) -> None:
        """Kill it, let the rest serve alone for a while, start the fleet."""
        pid = (await scene.status()).supervisor_pid
        supervisor = Note(pid, orphans.start_time(pid) or 0)
        async with scene.fault(Kill("the supervisor", [supervisor]), "supervisor"):
            await scene.rest(ALONE_FOR_S)
        scene.watch.note("note", "fleet", "is started again")
        await cluster.start_detached(scene.topology, scene.directory, tell=lambda change: None)
        scene.watch.note("note", "fleet", "is ready")
        await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Nothing fails before the new start, which ends all; then everything is as it was."""
        started = next(each.at for each in history.happenings if each.text == "is started again")
        alone = history.until(started)
        yield verdict.reads(alone, "No read fails while there is no supervisor.")
        yield verdict.no_write_fails(alone, "No write fails while there is no supervisor.")
        yield verdict.serves_again(
            history,
            started,
            within_s=SERVES_WITHIN_S,
            promise=f"Started, it serves within {SERVES_WITHIN_S:g} s.",
        )
        yield from nothing_is_lost(history)

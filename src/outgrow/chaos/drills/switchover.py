"""The planned change of the primary, under load: nobody is to notice more than a short wait."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import takeover, verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.history import History
from outgrow.chaos.replicas import WATCHED_S, replicated, until_whole
from outgrow.chaos.scene import Scene
from outgrow.chaos.takeover import ASKED, DONE, SWITCHOVER
from outgrow.chaos.verdict import Finding
from outgrow.errors import FleetError
from outgrow.growth import primary
from outgrow.topology import Topology

PAUSED_S = 1.0


class Switchover:
    """As `outgrow switchover` does it, once or `--events` times in a row."""

    name = "switchover"
    shows = "another node becomes the primary as planned, and the old one follows it"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "what `outgrow switchover` does, once or as often as --events says"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """Each time when everything is in order again. One that is refused ends the drill."""
        for _ in range(scene.events(1)):
            scene.watch.note("note", SWITCHOVER, ASKED)
            try:
                change = await primary.switchover(scene.directory, None)
            except FleetError as error:
                scene.watch.note("note", SWITCHOVER, f"was not done: {error}")
                return
            says = f"{DONE} {change.before} to {change.after}, writes were held for {change.seconds:.2f} s"
            scene.watch.note("note", SWITCHOVER, says)
            await until_whole(scene, change.before)
            await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """No request fails, a write waits for a moment, and nothing is lost."""
        yield takeover.handed_over(history)
        yield takeover.paused(history, within_s=PAUSED_S)
        yield verdict.reads(history)
        yield verdict.no_write_fails(history)
        yield from nothing_is_lost(history)

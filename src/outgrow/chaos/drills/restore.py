"""A copy under load, the log from there on, and the database as it was in between, beside the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from outgrow.backups import beside, now
from outgrow.chaos import restored, verdict
from outgrow.chaos.drills.drill import nothing_is_lost, own_postgres
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.cluster.state import State
from outgrow.errors import OutgrowError
from outgrow.topology import Topology

BACKUPS = "backups"
MOMENT = "the moment to restore"
BETWEEN_S = 4.0
"""Of load between the copy and the moment, and after it."""

ARCHIVED_WITHIN_S = 60.0


class Restore:
    """What was acknowledged until a moment is there, what came later is not, and nobody notices."""

    name = "restore"
    shows = "a copy and the log give back any moment, to the write"
    needs = "stage 2 or further, with the fleet's own PostgreSQL and [backup] directory in outgrow.toml"
    does = "copies the database under load, and restores a later moment beside it, with a process of its own"

    def refuses(self, topology: Topology) -> str | None:
        if topology.backup.directory is None:
            return "backups: directory under [backup] in outgrow.toml, and a new start"
        return own_postgres(topology)

    async def run(self, scene: Scene) -> None:
        """Copy, note a moment, let more be written, restore, count."""
        copy = await asyncio.to_thread(now.take, scene.directory, scene.topology)
        scene.watch.note("note", BACKUPS, f"the copy {copy.name} is complete")
        await scene.rest(BETWEEN_S)
        moment = _note_moment(scene)
        await scene.rest(BETWEEN_S)
        await _until_archived(scene, time.time())
        began = scene.now()
        async with beside.restored(scene.directory, scene.topology, moment) as url:
            scene.watch.note("note", BACKUPS, f"restored, and served, after {scene.now() - began:.1f} s")
            scene.restored = await scene.count(url)
        await scene.rest(BETWEEN_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """To the write, and without a hand on what serves."""
        moment = next(each.at for each in history.happenings if each.text == MOMENT)
        yield restored.nothing_missing(history, moment)
        yield restored.nothing_later(history, moment)
        yield verdict.reads(history, "No read fails meanwhile.")
        yield verdict.no_write_fails(history, "No write fails meanwhile.")
        yield from nothing_is_lost(history)


def _note_moment(scene: Scene) -> float:
    """By the drill's clock and by the database's at once: a busy machine may stop us in between."""
    while True:
        at, moment = scene.now(), time.time()
        if scene.now() - at < restored.UNCERTAIN_S / 2:
            scene.watch.note("note", BACKUPS, MOMENT, at)
            return moment


async def _until_archived(scene: Scene, moment: float) -> None:
    """Until the archive has all that was written by then. Raises OutgrowError when it falls behind."""
    state = State(scene.directory)

    async def archived() -> bool:
        shown = state.shown_backups()
        return shown is not None and shown.at - shown.behind_s > moment

    if not await scene.until(archived, ARCHIVED_WITHIN_S):
        raise OutgrowError("the archive of backups falls behind", hint="`outgrow logs wal-archive`")

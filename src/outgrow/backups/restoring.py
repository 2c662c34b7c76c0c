"""A database as it was at a moment: a copy, the log from there on, and PostgreSQL's own recovery.

choose ─► unpack ─► recover, up to the moment ─► our passwords ─► exchange ─► another line begins
                     a server that nobody can reach    │
                                                       └ one rename: the data of before stands beside it
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from outgrow.backups import history
from outgrow.backups.recovery import HOST_NUMBER, Recovery, unpack
from outgrow.cluster.state import State
from outgrow.engines.backup import folder
from outgrow.engines.postgres import PORT
from outgrow.errors import FleetError, Misuse
from outgrow.supervisor import orphans
from outgrow.topology import Topology

AT_FDCWD, RENAME_EXCHANGE = -100, 2

Tell = Callable[[str], None]


class Restored(NamedTuple):
    """`last` is when the last transaction was that is in it, as PostgreSQL says; "" when there was none."""

    copy: str
    last: str
    aside: Path | None


async def restore(directory: Path, topology: Topology, moment: float | None, *, tell: Tell) -> Restored:
    """Put the database of a stopped fleet back to that moment, or to the newest that there is.

    Raises Misuse, FleetBusy while the fleet runs, FleetError; the data is as it was then.
    """
    _require_alone(topology)
    state = State(directory)
    line, copy = history.chosen(history.histories(folder(topology, state.application)), moment)
    with state.locked():
        await asyncio.to_thread(orphans.end, state.marked())  # of a fleet or a restore that was killed
        state.keep_secrets(topology)
        data = state.placement().data / "postgres"
        making = data.with_name("postgres.restoring")
        recovery = Recovery(state, topology, line, making, state.free_host((HOST_NUMBER, PORT)))
        tell(f"unpacking the copy of {history.at(copy.ended)}")
        await asyncio.to_thread(unpack, line.place(copy.name), making)
        tell(f"reading the write-ahead log up to {history.at(moment) if moment else 'its end'}")
        async with recovery.recovered(moment) as last:
            pass
        await asyncio.to_thread(recovery.set_password)
        aside = await asyncio.to_thread(_exchange, making, data)
        history.begin(line.folder.parent, line.about.system)
    return Restored(copy.name, last, aside)


def _require_alone(topology: Topology) -> None:
    if topology.database.engine != "postgres" or topology.database.url is not None:
        raise Misuse("the database at this stage is none that the fleet backs up", hint="docs/backups.md")
    if topology.database.copies:
        raise Misuse(
            "a database with replicas cannot be restored in place by this version",
            hint="write replicas = 0 under [database] and restore; docs/backups.md says how they come again",
        )


def _exchange(made: Path, data: Path) -> Path | None:
    """The restored data takes the place of the other in one step; that one is kept beside it."""
    if not data.exists():
        made.rename(data)
        return None
    kept = data.with_name(f"postgres.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(made), os.fsencode(data)
    if libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_EXCHANGE):
        raise FleetError(f"{made} cannot take the place of {data}: {os.strerror(ctypes.get_errno())}")
    made.rename(kept)
    return kept

"""A database as it was at a moment: a copy, the log from there on, and PostgreSQL's own recovery.

choose ─► unpack ─► recover, up to the moment ─► our passwords ─► exchange ─► another line begins
                     a server that nobody can reach    │
                                                       └ one rename: the data of before stands beside it
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from outgrow.backups import history
from outgrow.backups.recovery import HOST_NUMBER, Recovery, unpack
from outgrow.cluster import plan
from outgrow.cluster.state import State
from outgrow.engines.backup import folder
from outgrow.engines.postgres.postgres import PORT
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
    if not plan.runs_postgres(topology):
        raise Misuse("the database at this stage is none that the fleet backs up", hint="docs/backups.md")
    state = State(directory)
    line, copy = history.chosen(history.histories(folder(topology, state.application)), moment)
    with state.locked():
        await asyncio.to_thread(orphans.end, state.marked())  # of a fleet or a restore that was killed
        state.keep_secrets(topology)
        place = _Place.of(topology, state)
        await asyncio.to_thread(place.clear)
        recovery = Recovery(state, topology, line, place.data, state.free_host((HOST_NUMBER, PORT)))
        tell(f"unpacking the copy of {history.at(copy.ended)}")
        await asyncio.to_thread(unpack, line.place(copy.name), place.data)
        tell(f"reading the write-ahead log up to {history.at(moment) if moment else 'its end'}")
        async with recovery.recovered(moment) as last:
            pass
        await asyncio.to_thread(recovery.set_passwords)
        place.settle()
        aside = await asyncio.to_thread(_exchange, place.making, place.folder)
        history.begin(line.folder.parent, line.about.system)
    return Restored(copy.name, last, aside)


class _Place(NamedTuple):
    """Which folder is exchanged, and where in the one that is made the database is.

    With replicas it is that of the whole cluster, what etcd knows included: the first node alone has data,
    and the others copy it. `settings` are Patroni's, which etcd has no more.
    """

    folder: Path
    node: str = ""
    settings: dict[str, Any] | None = None

    @classmethod
    def of(cls, topology: Topology, state: State) -> Self:
        """As the topology says."""
        place = state.placement()
        if not plan.replicated(topology):
            return cls(place.data / "postgres")
        from outgrow.engines.patroni.patroni import Patroni

        engine = Patroni(topology, place)
        return cls(engine.folder, next(iter(engine.hosts)), engine.dynamic())

    @property
    def making(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.restoring")

    @property
    def data(self) -> Path:
        return self.making / self.node

    def clear(self) -> None:
        """What one that was killed has left goes."""
        shutil.rmtree(self.making, ignore_errors=True)
        self.making.mkdir(mode=0o700)

    def settle(self) -> None:
        """Patroni finds its settings with the data where etcd has none."""
        if self.settings is not None:
            (self.data / "patroni.dynamic.json").write_text(json.dumps(self.settings))


def _exchange(made: Path, data: Path) -> Path | None:
    """The restored data takes the place of the other in one step; that one is kept beside it."""
    if not data.exists():
        made.rename(data)
        return None
    kept = data.with_name(f"{data.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(made), os.fsencode(data)
    if libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_EXCHANGE):
        raise FleetError(f"{made} cannot take the place of {data}: {os.strerror(ctypes.get_errno())}")
    made.rename(kept)
    return kept

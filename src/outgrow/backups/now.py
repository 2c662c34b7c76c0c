"""A copy at once, of a fleet that runs; what there is; and what the mirror has."""

from __future__ import annotations

from pathlib import Path

from outgrow.backups import copying, history, mirror
from outgrow.backups.history import Copy, History
from outgrow.backups.s3 import Bucket
from outgrow.cluster import plan
from outgrow.cluster.state import State
from outgrow.engines.backup import Backup, folder
from outgrow.errors import Misuse
from outgrow.topology import Topology


def take(directory: Path, topology: Topology) -> Copy:
    """Make one. Raises Misuse, FleetNotRunning, BeingChanged or FleetError."""
    state = State(directory)
    place = folder(topology, state.application)
    if not plan.runs_postgres(topology):
        raise Misuse("the database at this stage is none that the fleet backs up", hint="docs/backups.md")
    database = plan.running_database(topology, state)
    known = history.histories(place)
    if not known:
        raise Misuse(
            "this fleet has not begun to keep backups yet",
            hint="[backup] counts from the next start: `outgrow down`, then `outgrow up`",
        )
    engine = Backup(topology, state.placement(), database.owner_url, database.last)
    return copying.take(known[-1], engine.programs, engine.url, engine.passwords)


async def fetch(directory: Path, topology: Topology) -> int:
    """Bring what the mirror has into the empty folder; returns the bytes. Raises Misuse, FleetError."""
    if topology.backup.mirror is None:
        raise Misuse("outgrow.toml names no mirror under [backup]", hint="docs/backups.md")
    return await mirror.fetch(Bucket(topology.backup.mirror), folder(topology, State(directory).application))


def there(directory: Path, topology: Topology) -> list[History]:
    """Every line of writes, the oldest first; also when nothing runs. Raises Misuse."""
    return history.histories(folder(topology, State(directory).application))

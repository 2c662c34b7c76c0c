"""Backups of a PostgreSQL that moves while it serves: the archive goes along, and nothing is missing in it.

the new primary keeps its log ─► nobody reads the old one's any more ─► switch ─► the archive goes on there

What read the old primary's log beyond the switch would have a line of writes that the new one does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from outgrow.cluster.control import Request
from outgrow.engines import Placement
from outgrow.engines.backup import ARCHIVER, KEEPER, Backup
from outgrow.engines.patroni.patroni import Patroni
from outgrow.engines.postgres.archive import archived, keep_log
from outgrow.engines.postgres.postgres import Postgres
from outgrow.errors import FleetError
from outgrow.topology import Topology

NODES = (ARCHIVER, KEEPER)
CAUGHT_UP_WITHIN_S = 30.0
LOOK_S = 0.1
BEHIND = (
    "the archive of backups is behind: if the new primary lacks what it has not read, "
    "another line of it begins, with a copy of its own"
)

Ask = Callable[[Request], Awaitable[None]]


async def leave(old_url: str, new_url: str, password: str, ask: Ask) -> str:
    """End the backups, once the server at `new_url` keeps what they have not read. Both for the superuser.

    Returns what somebody should know, "" when the archive will go on without a gap. Raises FleetError.
    """
    kept_from = await keep_log(new_url, password)
    complete = await _has_read(old_url, password, kept_from)
    await ask(Request("remove", names=NODES))
    return "" if complete else BEHIND


async def _has_read(url: str, password: str, position: int) -> bool:
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            while ((await archived(url, password)).kept or 0) < position:
                await asyncio.sleep(LOOK_S)
    except (TimeoutError, FleetError):
        return False
    return True


async def go_on(topology: Topology, place: Placement, database: Postgres | Patroni, ask: Ask) -> None:
    """Have them at this database, which runs. What runs already is left alone."""
    workloads = Backup(topology, place, database.owner_url, database.last).workloads()
    await ask(Request("start", workloads=tuple(replace(each, after=()) for each in workloads)))

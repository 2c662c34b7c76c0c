"""What a primary says of itself to the backups: who it is, and how far its archive has come."""

from __future__ import annotations

from typing import Any, NamedTuple

from outgrow.engines.postgres.postgres import ARCHIVE
from outgrow.errors import FleetError

WITHIN_S = 5.0

_SYSTEM = "SELECT system_identifier FROM pg_control_system()"
_BEHIND = """
SELECT active, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint,
    pg_wal_lsn_diff(restart_lsn, '0/0')::bigint
FROM pg_replication_slots WHERE slot_name = $1
"""
_KEEP = """
WITH made AS (
    SELECT lsn FROM pg_create_physical_replication_slot($1, true)
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)
)
SELECT pg_wal_lsn_diff(min(lsn), '0/0')::bigint FROM (
    SELECT lsn FROM made UNION ALL SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = $1
) AS kept
"""
_LOST = """
SELECT pg_drop_replication_slot(slot_name) IS NOT NULL
FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost'
"""


class Archived(NamedTuple):
    """`connected`: somebody reads the log. Bytes since its beginning: those on the primary's disk, and those
    in the archive, None when nobody has ever read any.
    """

    connected: bool
    written: int
    kept: int | None

    @property
    def behind(self) -> int | None:
        """Bytes that the archive does not have yet."""
        return None if self.kept is None else max(0, self.written - self.kept)


async def system(url: str, password: str) -> str:
    """The number that PostgreSQL gives a data directory when it is made. Raises FleetError."""
    return str((await _ask(url, password, _SYSTEM))[0])


async def archived(url: str, password: str) -> Archived:
    """How far the archive is behind what is on the primary's disk. Raises FleetError."""
    found = await _ask(url, password, _BEHIND, ARCHIVE)
    return Archived(*found) if found is not None else Archived(connected=False, written=0, kept=None)


async def gap(url: str, password: str) -> bool:
    """Whether the archive was away for so long that it has lost a part of the log. Its slot goes then."""
    return await _ask(url, password, _LOST, ARCHIVE) is not None


async def keep_log(url: str, password: str) -> int:
    """Have this server keep its log for the archive, also while it follows another one.

    From where on, in bytes since its beginning. Raises FleetError.
    """
    kept_from = (await _ask(url, password, _KEEP, ARCHIVE))[0]
    if kept_from is None:
        raise FleetError("the new primary keeps no log for the backups")
    return int(kept_from)


async def _ask(url: str, password: str, query: str, *arguments: str) -> Any:
    import asyncpg

    server = url.replace(f"&application_name={ARCHIVE}", "").replace(f"?application_name={ARCHIVE}", "")
    try:
        connection = await asyncpg.connect(server, password=password, timeout=WITHIN_S)
        try:
            return await connection.fetchrow(query, *arguments, timeout=WITHIN_S)
        finally:
            await connection.close(timeout=WITHIN_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise FleetError(
            f"the database does not answer the backups: {error or type(error).__name__}"
        ) from error

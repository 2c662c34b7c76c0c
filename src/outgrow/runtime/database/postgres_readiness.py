"""Whether a PostgreSQL of one's own lets its changes be read, and the SQL that it takes."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import asyncpg

from outgrow.errors import Unavailable
from outgrow.runtime.database.postgres_errors import CONNECTION_LOST, unreachable

WITHIN_S = 3.0

_KEEPS_ALL = "SELECT setting = '-1' FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'"


async def lacking(url: str, password: str | None) -> list[str]:
    """What a superuser is to say there, so that this role can read changes; nothing when it can.

    Raises Unavailable when it cannot even connect.
    """
    role = unquote(urlsplit(url).username or "")
    said = []
    try:
        connection = await asyncpg.connect(url, password=password, timeout=WITHIN_S)
        try:
            if await connection.fetchval("SHOW wal_level") != "logical":
                said.append("ALTER SYSTEM SET wal_level = 'logical'; -- then restart the server")
            if await connection.fetchval(_KEEPS_ALL):
                said.append("ALTER SYSTEM SET max_slot_wal_keep_size = '4GB'; SELECT pg_reload_conf();")
        finally:
            connection.terminate()
    except (asyncpg.PostgresError, *CONNECTION_LOST, TimeoutError) as error:
        raise unreachable(error, "changes", url) from error
    if not await _may_read_the_log(url, password):
        said.append(f'ALTER ROLE "{role}" REPLICATION;')
    return said


async def _may_read_the_log(url: str, password: str | None) -> bool:
    """Asked by trying: who may, servers of somebody else say in ways of their own."""
    try:
        connection = await asyncpg.connect(
            url, password=password, timeout=WITHIN_S, server_settings={"replication": "database"}
        )
    except asyncpg.InsufficientPrivilegeError:
        return False
    except (asyncpg.PostgresError, *CONNECTION_LOST, TimeoutError) as error:
        raise Unavailable(f"no replication connection to it: {error or type(error).__name__}") from error
    connection.terminate()
    return True

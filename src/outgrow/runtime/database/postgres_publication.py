"""The tables whose changes are published for the cache, by the role that owns them: after the migrations.

A row that is changed or deleted is told as it was only where its table says REPLICA IDENTITY FULL, and
without that nobody could say which tags it had: so the tables get it, and lose it when they are no longer
followed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import asyncpg

from outgrow.errors import Misuse, Unavailable
from outgrow.runtime.database.pgoutput import name_of
from outgrow.runtime.database.postgres_changes import PUBLICATION
from outgrow.runtime.database.postgres_errors import CONNECTION_LOST

WITHIN_S = 30.0
LOCK_WITHIN = "10s"

_PUBLISHED = "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = $1"
_EXISTS = "SELECT true FROM pg_catalog.pg_publication WHERE pubname = $1"
_IDENTITY = "SELECT relreplident = 'f' FROM pg_catalog.pg_class WHERE oid = to_regclass($1)"

Told = Callable[[str], None]


async def publish(
    url: str, password: str | None, tables: Collection[str], told: Told = lambda line: None
) -> None:
    """Publish exactly these tables; without any, nothing.

    Raises Misuse when one is not there or the server writes no such log, Unavailable when it does not answer
    or refuses.
    """
    try:
        connection = await asyncpg.connect(url, password=password, timeout=WITHIN_S)
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WITHIN}'")
                await _publish(connection, set(tables), told)
        finally:
            await connection.close(timeout=WITHIN_S)
    except (asyncpg.PostgresError, *CONNECTION_LOST, TimeoutError) as error:
        raise Unavailable(f"cache.follow_changes: {error or type(error).__name__}") from error


async def _publish(connection: Any, wanted: set[str], told: Told) -> None:
    before = {name_of(*row) for row in await connection.fetch(_PUBLISHED, PUBLICATION)}
    exists = await connection.fetchval(_EXISTS, PUBLICATION)
    if wanted:
        await _require_log(connection)
    for table in sorted(wanted):
        full = await connection.fetchval(_IDENTITY, quoted(table))
        if full is None:
            raise Misuse(
                f"cache.follow_changes names {table}, and the database has no such table",
                hint="write it as the migrations do: TABLE, or SCHEMA.TABLE outside of public",
            )
        if not full:
            await connection.execute(f"ALTER TABLE {quoted(table)} REPLICA IDENTITY FULL")
    for table in sorted(before - wanted):
        await connection.execute(f"ALTER TABLE {quoted(table)} REPLICA IDENTITY DEFAULT")
    tables = ", ".join(map(quoted, sorted(wanted)))
    if wanted and not exists:
        await connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {tables}")
    elif wanted and wanted != before:
        await connection.execute(f"ALTER PUBLICATION {PUBLICATION} SET TABLE {tables}")
    elif exists and not wanted:
        await connection.execute(f"DROP PUBLICATION {PUBLICATION}")
    if wanted != before:
        told(f"changes are published of {', '.join(sorted(wanted)) or 'no table'}")


async def _require_log(connection: Any) -> None:
    level = await connection.fetchval("SHOW wal_level")
    if level != "logical":
        raise Misuse(
            f"cache.follow_changes: the server's wal_level is {level}",
            hint="ALTER SYSTEM SET wal_level = logical; then restart the server",
        )


def quoted(table: str) -> str:
    """As a statement takes it. Its signs are checked by the topology."""
    schema, dot, name = table.rpartition(".")
    return f'"{schema if dot else "public"}"."{name}"'

"""A PostgreSQL and a physical copy that follows it: how far it is, whether it is the same, the change-over.

locked: nobody writes ─► position ─► the copy has replayed it ─► it is promoted ─► the source is fenced
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from outgrow.errors import FleetError, VerificationFailed
from outgrow.growth.data.columns import quoted

CONNECT_WITHIN_S = 10.0
LOCK_WITHIN = "2s"
STEP_S = 0.002
PROMOTE_WITHIN_S = 15
USERS_EVERY_S = 0.2

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1
"""

_CHECKSUM = """
SELECT count(*) AS rows, coalesce(sum(hashtextextended(held::text, 0)::numeric), 0) AS sum
FROM ONLY {} AS held
"""

_USERS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND datname = current_database()"


@asynccontextmanager
async def connected(url: str, password: str) -> AsyncIterator[Any]:
    """A connection as the fleet's superuser. Errors of PostgreSQL become FleetError."""
    try:
        connection = await asyncpg.connect(
            url,
            password=password,
            timeout=CONNECT_WITHIN_S,
            server_settings={"application_name": "outgrow-growth", "idle_session_timeout": "0"},
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise FleetError(f"PostgreSQL does not answer: {error}") from error
    try:
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as error:
        raise FleetError(f"PostgreSQL: {error}") from error
    finally:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await connection.close(timeout=2)


async def run_as_last(connection: Any, statement: str, *arguments: object) -> None:
    """Run what has the server end, which may come before the answer."""
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
        await connection.execute(statement, *arguments)


@asynccontextmanager
async def locked(connection: Any) -> AsyncIterator[None]:
    """Nobody writes to any table until it ends. What was written inside it is kept only by a COMMIT there."""
    tables = [row[0] for row in await connection.fetch(_TABLES)]
    await connection.execute("BEGIN")
    try:
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WITHIN}'")
        if tables:
            await connection.execute(f"LOCK TABLE {', '.join(tables)} IN EXCLUSIVE MODE")
        yield
    finally:
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK")


async def position(connection: Any) -> str:
    """Everything committed until now is before it in the log, and on the disk. Needs no transaction."""
    await connection.execute("SELECT pg_logical_emit_message(true, 'outgrow', 'position')")
    lsn: str = await connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    return lsn


async def until_replayed(connection: Any, lsn: str, within_s: float) -> None:
    """The copy shows everything up to that position. Raises FleetError when it takes longer."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not await connection.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn):
        if asyncio.get_running_loop().time() > deadline:
            raise FleetError(f"the copy has not come to {lsn} within {within_s:g} s")
        await asyncio.sleep(STEP_S)


async def until_writable(connection: Any, within_s: float = PROMOTE_WITHIN_S) -> None:
    """It has been promoted. Raises FleetError when it takes longer."""
    deadline = asyncio.get_running_loop().time() + within_s
    while await connection.fetchval("SELECT pg_is_in_recovery()"):
        if asyncio.get_running_loop().time() > deadline:
            raise FleetError(f"the copy was not promoted within {within_s:g} s")
        await asyncio.sleep(STEP_S)


async def begun(connection: Any) -> tuple[int, int]:
    """Of one that has just been promoted: its timeline, and a position on it that includes all before."""
    row = await connection.fetchrow(
        "SELECT ('x' || substr(pg_walfile_name(lsn), 1, 8))::bit(32)::int, (lsn - '0/0')::bigint"
        " FROM pg_current_wal_flush_lsn() AS lsn"
    )
    return int(row[0]), int(row[1])


async def promote(connection: Any) -> None:
    """It follows no longer."""
    await connection.execute("SELECT pg_promote(true, $1)", PROMOTE_WITHIN_S)


async def fence(connection: Any, role: str) -> None:
    """Inside `locked`: the application may not write there any more, once it is committed."""
    await connection.execute(
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public FROM {quoted(role)}"
    )


async def commit(connection: Any) -> None:
    """End `locked`, and keep what was written inside it."""
    await connection.execute("COMMIT")


async def verify(source: Any, beside: Any, copy: Any, within_s: float, says: Callable[[str], None]) -> str:
    """Compare every table at one moment; returns a digest. Writers wait while that moment is fixed.

    `source` and `beside` are two connections to the source. Raises VerificationFailed.
    """
    async with locked(beside):
        await until_replayed(copy, await position(source), within_s)
        for connection in (source, copy):
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await connection.fetchval("SELECT 1")  # the first statement fixes the moment
    try:
        return await _compare(source, copy, says)
    finally:
        for connection in (source, copy):
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
                await connection.execute("ROLLBACK")


async def _compare(source: Any, copy: Any, says: Callable[[str], None]) -> str:
    tables = [row[0] for row in await source.fetch(_TABLES)]
    if tables != [row[0] for row in await copy.fetch(_TABLES)]:
        raise VerificationFailed("the copy has other tables")
    total, whole = 0, 0
    for table in tables:
        statement = _CHECKSUM.format(table)
        wanted, held = await asyncio.gather(source.fetchrow(statement), copy.fetchrow(statement))
        if wanted["rows"] != held["rows"]:
            raise VerificationFailed(f"table {table}: {wanted['rows']:,} rows, {held['rows']:,} in the copy")
        if wanted["sum"] != held["sum"]:
            raise VerificationFailed(f"table {table}: its {held['rows']:,} rows differ in the copy")
        total, whole = total + held["rows"], (whole * 31 + int(held["sum"])) % (1 << 128)
        says(f"{total:,} rows compared, {table}")
    says(f"{total:,} rows are the same, checksum {whole:032x}")
    return f"{whole:032x}"


async def until_unused(connection: Any, role: str, within_s: float) -> None:
    """Reads that began before the change-over end where they are; those that do not are not waited for."""
    deadline = asyncio.get_running_loop().time() + within_s
    while await connection.fetchval(_USERS, role) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(USERS_EVERY_S)

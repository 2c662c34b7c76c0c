"""What write-behind has acknowledged moves with the database, and keeps its place before what comes later."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from outgrow.runtime.database.schema import metadata
from tests.growth.stores import Pair, whole_copy
from tests.support.postgres import PostgresServer

PUT = "INSERT INTO outgrow_buffer (strategy, key, era, value, created_at) VALUES ('s', 'k', {}, {}, 0)"
SEQ = "SELECT seq FROM outgrow_buffer ORDER BY seq"


@pytest.fixture
def pair(postgres_server: PostgresServer, tmp_path: Path) -> Pair:
    return Pair(postgres_server, tmp_path, metadata)


async def test_from_sqlite_to_postgres(pair: Pair) -> None:
    tables = await pair.create()
    await pair.on_sqlite(*[PUT.format(0, "x'01'")] * 3, "DELETE FROM outgrow_buffer WHERE seq = 1")
    await whole_copy(pair.sqlite, pair.postgres, tables)
    await pair.postgres.go_on(tables)
    await pair.on_postgres(PUT.format(1, r"'\x02'"), "SELECT 1")
    assert await pair.on_postgres(SEQ) == [(2,), (3,), (4,)]


async def test_from_postgres_to_sqlite(pair: Pair) -> None:
    tables = await pair.create()
    await pair.on_postgres(
        *[PUT.format(0, r"'\x01'")] * 3, "DELETE FROM outgrow_buffer WHERE seq < 3", "SELECT 1"
    )
    await whole_copy(pair.postgres, pair.sqlite, tables)
    await pair.sqlite.go_on(tables)
    await pair.on_sqlite(PUT.format(1, "x'02'"))
    assert await pair.on_sqlite(SEQ) == [(3,), (4,)]


async def test_a_role_that_owns_nothing_can_put(pair: Pair) -> None:
    """The application's role has the tables' rows, and no right to a sequence."""
    await pair.create()
    name = pair.url.rpartition("/")[2]
    await pair.on_postgres(
        f"CREATE ROLE weak_{name} LOGIN PASSWORD 'weak'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON outgrow_buffer TO weak_{name}",
        "SELECT 1",
    )
    connection = await asyncpg.connect(pair.url, user=f"weak_{name}", password="weak")
    try:
        await connection.execute(PUT.format(0, r"'\x01'"))
    finally:
        await connection.close()
    assert await pair.on_postgres(SEQ) == [(1,)]

"""What write-behind has acknowledged moves with the database, and keeps its place before what comes later."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from outgrow import endpoints
from outgrow.endpoints import Node, Shard
from outgrow.growth.data.postgres import PostgresStore
from outgrow.growth.data.sqlite import SqliteStore
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.database.schema import metadata
from tests.growth.stores import Pair, whole_copy
from tests.support.behind import ALL, CREATE, counts, outgrow
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


async def test_a_process_goes_on_after_the_move(postgres_server: PostgresServer, tmp_path: Path) -> None:
    here, there = f"sqlite:///{tmp_path}/data.db", postgres_server.create_database()
    await migrate(here, None)
    await migrate(there, None)
    async with (og := outgrow(here)), (target := outgrow(there)):
        for each in (og, target):
            async with each.db.write() as tx:
                await tx.execute(CREATE)
        strategy = counts(og)
        await strategy.put("a", 1)
        await strategy.put("b", 1)
        source = SqliteStore(tmp_path / "data.db")
        copy = PostgresStore(there, postgres_server.password, postgres_server.user)
        tables = await copy.tables()
        await og.db.gate.hold(5.0)
        await whole_copy(source, copy, tables)
        await copy.go_on(tables)
        shard = Shard("main", (Node("db", there),), timeline=1 << 16)
        await og.db.move(endpoints.Database(engine="postgres", shards=(shard,)), {})
        og.db.gate.release()
        await strategy.put("a", 2)
        assert [await strategy.get(key) for key in "ab"] == [2, 1]
        await strategy.flush()
        async with target.db.read() as tx:
            assert {row.name: row.n for row in await tx.all(ALL)} == {"a": 2, "b": 1}

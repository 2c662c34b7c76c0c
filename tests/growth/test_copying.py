"""Copying between SQLite and PostgreSQL while it is written to: each type, change and difference."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from outgrow.errors import FleetError, VerificationFailed
from outgrow.growth.data import copying
from outgrow.growth.data.columns import require_movable, require_same
from outgrow.growth.data.copying import Store
from tests.growth.stores import Pair, compared, quiet, whole_copy, write_at_random
from tests.support.postgres import PostgresServer

Make = Callable[[sa.MetaData], Pair]

everything = sa.MetaData()
kinds = sa.Table(
    "kinds",
    everything,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("small", sa.SmallInteger),
    sa.Column("whole", sa.Integer),
    sa.Column("big", sa.BigInteger),
    sa.Column("words", sa.Text),
    sa.Column("short", sa.String(30)),
    sa.Column("fixed", sa.CHAR(8)),
    sa.Column("yes", sa.Boolean),
    sa.Column("half", sa.REAL),
    sa.Column("real", sa.Float),
    sa.Column("exact", sa.Numeric(12, 3)),
    sa.Column("data", sa.LargeBinary),
    sa.Column("here", sa.DateTime),
    sa.Column("there", sa.DateTime(timezone=True)),
    sa.Column("day", sa.Date),
    sa.Column("clock", sa.Time),
    sa.Column("span", sa.Interval),
    sa.Column("number", sa.Uuid),
    sa.Column("document", sa.JSON),
    sa.Column("colour", sa.Enum("red", "blue", name="colour")),
)
ROWS: list[dict[str, Any]] = [
    {"id": -(2**63)},
    {
        "id": 2**63 - 1,
        "small": -(2**15),
        "whole": 2**31 - 1,
        "big": -(2**63),
        "words": "naïve 日本語 🐘 ' \" \\ \n\t",
        "short": "",
        "fixed": "ab",
        "yes": True,
        "half": 0.1,
        "real": 0.1,
        "exact": Decimal("123456789.120"),
        "data": bytes(range(256)),
        "here": datetime(1969, 12, 31, 23, 59, 59, 999999),
        "there": datetime(2026, 3, 29, 2, 30, tzinfo=UTC),
        "day": date(1, 1, 1),
        "clock": time(23, 59, 59, 1),
        "span": timedelta(days=40, seconds=3, microseconds=7),
        "number": UUID("00000000-0000-0000-0000-0000000000ff"),
        "document": {"z": [1, 2.5, 1e22, -0.0, None], "a": "ü", "é": {}},
        "colour": "blue",
    },
    {
        "id": 0,
        "words": "",
        "yes": False,
        "real": -0.0,
        "exact": Decimal("0.000"),
        "data": b"",
        "document": [],
    },
]

changing = sa.MetaData()
items = sa.Table(
    "items",
    changing,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("name", sa.Text, unique=True, nullable=False),
    sa.Column("parent", sa.BigInteger, sa.ForeignKey("items.id", ondelete="CASCADE", onupdate="CASCADE")),
)
sa.Table(
    "pairs",
    changing,
    sa.Column("word", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Integer),
)


@pytest.fixture
def make(postgres_server: PostgresServer, tmp_path: Path) -> Make:
    return lambda metadata: Pair(postgres_server, tmp_path, metadata)


def sides(pair: Pair, engine: str) -> tuple[Store, Store]:
    """Source and target, when `engine` is the source."""
    both: tuple[Store, Store] = (pair.sqlite, pair.postgres)
    return both if engine == "sqlite" else (both[1], both[0])


async def test_every_type_there_and_back(make: Make) -> None:
    pair = make(everything)
    tables = await pair.create()
    local = sa.create_engine(f"sqlite:///{pair.file}")
    with local.begin() as connection:
        for row in ROWS:
            connection.execute(sa.insert(kinds), row)
        before = connection.execute(sa.select(kinds).order_by(kinds.c.id)).fetchall()
    checksum = await whole_copy(pair.sqlite, pair.postgres, tables)
    [[words, there, document]] = await pair.on_postgres(
        "SELECT words, there, document::text FROM kinds WHERE id > 0"
    )
    assert words == ROWS[1]["words"] and there == ROWS[1]["there"]
    assert document.index('"z"') < document.index('"a"'), "json keeps its order"
    assert await whole_copy(pair.postgres, pair.sqlite, tables) == checksum
    with local.begin() as connection:
        assert connection.execute(sa.select(kinds).order_by(kinds.c.id)).fetchall() == before
    local.dispose()


async def test_jsonb_and_moments_with_a_zone(make: Make) -> None:
    pair = make(sa.MetaData())
    await pair.on_sqlite("CREATE TABLE j (id INTEGER PRIMARY KEY, doc TEXT, at TEXT)")
    await pair.on_postgres("CREATE TABLE j (id bigint PRIMARY KEY, doc jsonb, at timestamptz)")
    await pair.on_postgres(
        """INSERT INTO j VALUES (1, '{"bb": 1e22, "a": [1.50, -0.0, 1e-7]}', '2026-01-01 00:00+05:30')"""
    )
    tables = await pair.create()
    checksum = await whole_copy(pair.postgres, pair.sqlite, tables)
    [(at,)] = await pair.on_sqlite("SELECT at FROM j")
    assert datetime.fromisoformat(at) == datetime(2025, 12, 31, 18, 30)
    assert await whole_copy(pair.sqlite, pair.postgres, tables) == checksum
    zone = timezone(timedelta(hours=5, minutes=30))
    [(at,)] = await pair.on_postgres("SELECT at FROM j")
    assert at == datetime(2026, 1, 1, tzinfo=zone)


async def test_text_keys_in_the_order_of_bytes_and_many_pages(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PAGE", 7)
    pair = make(sa.MetaData())
    await pair.on_sqlite("CREATE TABLE t (k TEXT COLLATE NOCASE, n INT, v INT, PRIMARY KEY (k, n))")
    await pair.on_postgres("CREATE TABLE t (k text, n int, v int, PRIMARY KEY (k, n))")
    tables = await pair.create()
    words = ["a", "B", "b2", "A2", "é", "z", "ß", "", " ", "😀", "\uffff"]
    values = ", ".join(f"('{word}', {n}, {n})" for word in words for n in range(-5, 5))
    await pair.on_sqlite(f"INSERT INTO t VALUES {values}")
    checksum = await whole_copy(pair.sqlite, pair.postgres, tables)
    assert await whole_copy(pair.postgres, pair.sqlite, tables) == checksum


async def test_more_rows_than_a_page(make: Make) -> None:
    pair = make(changing)
    tables = await pair.create()
    many = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) "
        "INSERT INTO items (id, name) SELECT i * 3, 'n' || i FROM n"
    )
    await pair.on_sqlite(many)
    await pair.sqlite.capture(tables)
    mark = await copying.copy(pair.sqlite, pair.postgres, tables, quiet)
    await pair.on_sqlite(
        "UPDATE items SET name = 'm' || id WHERE id % 2 = 0", "DELETE FROM items WHERE id < 99"
    )
    async with pair.sqlite.snapshot() as snapshot:
        changes = await copying.catch_up(snapshot, pair.postgres, tables, mark)
    assert changes.rows > 5_000 and changes.grown == {"items": -32}
    await compared(pair.sqlite, pair.postgres, tables)
    await pair.on_postgres("INSERT INTO items (name) VALUES ('the sequence goes on')")


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", range(2))
async def test_whatever_is_written_meanwhile_arrives(make: Make, engine: str, seed: int) -> None:
    choice = random.Random(seed)
    pair = make(changing)
    tables = await pair.create()
    source, target = sides(pair, engine)
    await write_at_random(pair, engine, choice, 60)
    await source.capture(tables)
    writing = asyncio.ensure_future(write_at_random(pair, engine, choice, 150))
    mark = await copying.copy(source, target, tables, quiet)
    while not writing.done():
        async with source.snapshot() as snapshot:
            await copying.catch_up(snapshot, target, tables, mark)
            mark = snapshot.mark
    await writing
    async with source.locked() as last:
        await copying.catch_up(last, target, tables, mark)
    await compared(source, target, tables)
    await source.release()
    await write_at_random(pair, engine, choice, 10)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_rows_that_swap_what_is_unique_and_cascades(make: Make, engine: str) -> None:
    pair = make(changing)
    tables = await pair.create()
    source, target = sides(pair, engine)
    run = pair.on_sqlite if engine == "sqlite" else pair.on_postgres
    await run(
        "INSERT INTO items (id, name) VALUES (1, 'one'), (2, 'two')",
        "INSERT INTO items (id, name, parent) VALUES (3, 'child', 1), (4, 'grandchild', 3), (5, 'other', 2)",
    )
    await source.capture(tables)
    mark = await copying.copy(source, target, tables, quiet)
    await run(
        "UPDATE items SET name = 'x' WHERE id = 1",
        "UPDATE items SET name = 'one' WHERE id = 2",
        "UPDATE items SET name = 'two' WHERE id = 1",
        "UPDATE items SET id = 20 WHERE id = 2",
        "DELETE FROM items WHERE id = 1",
    )
    async with source.snapshot() as snapshot:
        changes = await copying.catch_up(snapshot, target, tables, mark)
    assert changes.grown == {"items": -3}
    await compared(source, target, tables)


async def test_a_transaction_that_commits_after_later_ones_is_not_missed(make: Make) -> None:
    pair = make(changing)
    tables = await pair.create()
    await pair.postgres.capture(tables)
    import asyncpg

    slow = await asyncpg.connect(pair.url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("INSERT INTO items (id, name) VALUES (1, 'slow')")
    await pair.on_postgres("INSERT INTO items (id, name) VALUES (2, 'fast')")
    mark = await copying.copy(pair.postgres, pair.sqlite, tables, quiet)
    await pair.on_postgres("INSERT INTO items (id, name) VALUES (3, 'faster')")
    async with pair.postgres.snapshot() as snapshot:
        await copying.catch_up(snapshot, pair.sqlite, tables, mark)
        mark = snapshot.mark
    await transaction.commit()
    await slow.close()
    async with pair.postgres.snapshot() as snapshot:
        assert (await copying.catch_up(snapshot, pair.sqlite, tables, mark)).rows == 2 + 1
        mark = snapshot.mark
    await compared(pair.postgres, pair.sqlite, tables)
    async with pair.postgres.snapshot() as snapshot:
        assert (await copying.catch_up(snapshot, pair.sqlite, tables, mark)).rows == 0


async def test_a_replaced_row_that_no_trigger_notes_is_caught(make: Make) -> None:
    pair = make(changing)
    tables = await pair.create()
    await pair.on_sqlite("INSERT INTO items (id, name) VALUES (1, 'same')")
    await pair.sqlite.capture(tables)
    mark = await copying.copy(pair.sqlite, pair.postgres, tables, quiet)
    await pair.on_sqlite("INSERT OR REPLACE INTO items (id, name) VALUES (2, 'same')")  # row 1 is gone
    with pytest.raises(FleetError, match=r"items|duplicate"):
        async with pair.sqlite.snapshot() as snapshot:
            await copying.catch_up(snapshot, pair.postgres, tables, mark)
    with pytest.raises(VerificationFailed, match="items: the row with the key 2 is missing"):
        await compared(pair.sqlite, pair.postgres, tables)


async def test_any_single_value_that_differs_is_found(make: Make) -> None:
    pair = make(everything)
    tables = await pair.create()
    local = sa.create_engine(f"sqlite:///{pair.file}")
    with local.begin() as connection:
        connection.execute(sa.insert(kinds), ROWS[1])
    local.dispose()
    changed = {"here": "here + interval '1 microsecond'", "there": "there + interval '1 microsecond'"}
    for column in [column.name for column in kinds.columns if column.name != "id"]:
        await whole_copy(pair.sqlite, pair.postgres, tables)
        await pair.on_postgres(f"UPDATE kinds SET {column} = {changed.get(column, 'NULL')}")
        with pytest.raises(VerificationFailed, match=f"the row with the key {2**63 - 1} differs in {column}"):
            await compared(pair.sqlite, pair.postgres, tables)


async def test_rows_too_many_and_too_few_are_found(make: Make) -> None:
    pair = make(changing)
    tables = await pair.create()
    await pair.on_sqlite("INSERT INTO items (id, name) VALUES (1, 'a'), (2, 'b')")
    await whole_copy(pair.sqlite, pair.postgres, tables)
    await pair.on_postgres("UPDATE items SET id = 3 WHERE id = 2")
    with pytest.raises(VerificationFailed, match="the key 2 is missing"):
        await compared(pair.sqlite, pair.postgres, tables)
    await pair.on_postgres("DELETE FROM items WHERE id = 3")
    with pytest.raises(VerificationFailed, match="2 rows, and 1 in the copy"):
        await compared(pair.sqlite, pair.postgres, tables)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("k integer PRIMARY KEY, v text[]", r"t.v \(_text\)"),
        ("k bytea PRIMARY KEY", r"t.k \(bytea\)"),
        ("k float8 PRIMARY KEY", r"t.k \(float8\)"),
        ("k integer PRIMARY KEY, v inet", r"t.v \(inet\)"),
    ],
)
async def test_types_that_cannot_be_moved_are_named(make: Make, column: str, said: str) -> None:
    pair = make(sa.MetaData())
    await pair.on_postgres(f"CREATE TABLE t ({column})")
    with pytest.raises(FleetError, match=said):
        require_movable(await pair.postgres.tables())


async def test_tables_without_a_key_and_tables_that_differ(make: Make) -> None:
    pair = make(sa.MetaData())
    await pair.on_postgres("CREATE TABLE t (a int)")
    with pytest.raises(FleetError, match="table t has no primary key"):
        await pair.postgres.tables()
    await pair.on_postgres("ALTER TABLE t ADD PRIMARY KEY (a)")
    await pair.on_sqlite("CREATE TABLE t (a INTEGER PRIMARY KEY, b INT)", "CREATE TABLE u (a INT)")
    with pytest.raises(FleetError, match=r"the same tables and columns: u, t\.b"):
        require_same(await pair.postgres.tables(), await pair.sqlite.columns())


async def test_a_row_that_cannot_be_moved_is_told(make: Make) -> None:
    pair = make(sa.MetaData())
    await pair.on_sqlite("CREATE TABLE t (a INTEGER PRIMARY KEY, b INT)", "INSERT INTO t VALUES (1, 'many')")
    await pair.on_postgres("CREATE TABLE t (a int PRIMARY KEY, b int)")
    tables = await pair.postgres.tables()
    with pytest.raises(FleetError, match=r"table t: a row cannot be moved: .*many"):
        await whole_copy(pair.sqlite, pair.postgres, tables)


async def test_a_fence_keeps_the_application_out(make: Make) -> None:
    pair = make(changing)
    tables = await pair.create()
    await pair.on_sqlite(
        "CREATE TABLE outgrow_position (commits INT)", "INSERT INTO outgrow_position VALUES (1)"
    )
    await pair.sqlite.capture(tables)
    async with pair.sqlite.locked() as last:
        await last.fence()
        await last.commit()
    with pytest.raises(Exception, match="has moved to another database"):
        await pair.on_sqlite("UPDATE outgrow_position SET commits = 2")
    await pair.sqlite.unfence()
    await pair.sqlite.release()
    await pair.on_sqlite("UPDATE outgrow_position SET commits = 2")
    [(left,)] = await pair.on_sqlite("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'")
    assert left == 0


async def test_capturing_waits_for_a_writer_without_a_deadlock(make: Make) -> None:
    pair = make(changing)
    tables = await pair.create()
    import asyncpg

    writer = await asyncpg.connect(pair.url)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("INSERT INTO pairs VALUES ('a', 1, 1)")
    capturing = asyncio.ensure_future(pair.postgres.capture(tables))  # items first, then pairs
    await asyncio.sleep(0.2)
    await writer.execute("INSERT INTO items (id, name) VALUES (1, 'a')")
    await transaction.commit()
    await writer.close()
    await capturing
    await pair.on_postgres("DELETE FROM pairs")
    assert ("pairs", '["a", 1]') in await pair.on_postgres("SELECT tab, key FROM outgrow_changes")
    await pair.postgres.release()
    assert await pair.on_postgres("SELECT to_regclass('outgrow_changes')::text") == [(None,)]

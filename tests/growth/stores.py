"""The same tables in a SQLite file and in a PostgreSQL database, and clients that write to either."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from outgrow.growth.data import copying
from outgrow.growth.data.columns import Table, require_movable, require_same
from outgrow.growth.data.copying import Store
from outgrow.growth.data.postgres import PostgresStore
from outgrow.growth.data.sqlite import SqliteStore
from tests.support.postgres import PostgresServer


def quiet(text: str) -> None:
    """Nobody is told."""


class Pair:
    """Two stores with the tables of one `metadata`."""

    def __init__(self, server: PostgresServer, folder: Path, metadata: sa.MetaData) -> None:
        self.url = server.create_database()
        self.file = folder / "data.db"
        self._metadata = metadata
        self.sqlite = SqliteStore(self.file)
        self.postgres = PostgresStore(self.url, server.password, server.user)

    async def create(self) -> list[Table]:
        """Make the tables on both; what is there to move."""
        local = sa.create_engine(f"sqlite:///{self.file}")
        with local.begin() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            self._metadata.create_all(connection)
        local.dispose()
        remote = create_async_engine(self.url.replace("postgresql://", "postgresql+asyncpg://"))
        async with remote.begin() as connection:
            await connection.run_sync(self._metadata.create_all)
        await remote.dispose()
        tables = await self.postgres.tables()
        require_same(tables, await self.sqlite.columns())
        require_movable(tables)
        return tables

    async def on_sqlite(self, *statements: str) -> list[Any]:
        """Run them; the rows of the last."""

        def call() -> list[Any]:
            connection = sqlite3.connect(self.file, timeout=20)
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:
                rows = [connection.execute(each).fetchall() for each in statements]
            connection.close()
            return rows[-1]

        return await asyncio.to_thread(call)

    async def on_postgres(self, *statements: str) -> list[Any]:
        """Run them; the rows of the last."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                rows = [await connection.fetch(each) for each in statements]
        finally:
            await connection.close()
        return [tuple(row) for row in rows[-1]]


async def whole_copy(source: Store, target: Store, tables: Sequence[Table]) -> str:
    """Copy and compare; the checksum of everything."""
    await copying.copy(source, target, tables, quiet)
    return await compared(source, target, tables)


async def compared(source: Store, target: Store, tables: Sequence[Table]) -> str:
    """The checksum of everything. Raises VerificationFailed."""
    async with source.snapshot() as one, target.snapshot() as other:
        return await copying.verify(one, other, tables, quiet)


def random_write(choice: random.Random) -> list[str]:
    """A transaction on the tables `items` and `pairs`; it may break a constraint, and is nothing then."""
    one, other, name = choice.randint(1, 60), choice.randint(1, 60), f"n{choice.randint(1, 60)}"
    key, number = choice.choice(("é", "e", "z", "Z", "")), choice.randint(-3, 3)
    return choice.choice(
        (
            [f"INSERT INTO items (id, name, parent) VALUES ({one}, '{name}', NULL)"],
            [f"INSERT INTO items (id, name, parent) VALUES ({one}, '{name}', {other})"],
            [f"UPDATE items SET name = '{name}' WHERE id = {one}"],
            [f"UPDATE items SET id = {other} WHERE id = {one}"],
            [
                f"UPDATE items SET name = 'swapping' WHERE id = {one}",
                f"UPDATE items SET name = 'swapped' WHERE id = {other}",
                "UPDATE items SET name = 'one' WHERE name = 'swapped'",
            ],
            [f"DELETE FROM items WHERE id = {one}"],
            [f"INSERT INTO pairs (word, number, value) VALUES ('{key}', {number}, {one})"],
            [f"UPDATE pairs SET word = '{key}', number = {number} WHERE value = {one}"],
            [f"UPDATE pairs SET value = {other} WHERE word = '{key}'"],
            [f"DELETE FROM pairs WHERE number = {number}"],
        )
    )


async def write_at_random(pair: Pair, engine: str, choice: random.Random, count: int) -> None:
    """So many transactions, one after the other."""
    run = pair.on_sqlite if engine == "sqlite" else pair.on_postgres
    for _ in range(count):
        with suppress(sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError):
            await run(*random_write(choice))

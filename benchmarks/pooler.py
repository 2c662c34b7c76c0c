"""What PgBouncer costs: `python -m benchmarks.pooler` measures a row by its key and a small write.

Each on connections of the process's own and through the pooler, alone and by 20 at once, in turns.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter

import sqlalchemy as sa

from benchmarks import machine
from benchmarks.servers import PostgresDatabases
from outgrow.endpoints import Database as Settings
from outgrow.endpoints import Node, Shard
from outgrow.runtime.database.database import Database
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids
from tests.support.pgbouncer import Pooler

ROWS = 1_000
ROUNDS = 7
SECONDS = 1.0

rows = sa.table("rows", sa.column("id", sa.BigInteger), sa.column("text", sa.Text))
GET = sa.select(rows).where(rows.c.id == sa.bindparam("row"))
SET = sa.update(rows).where(rows.c.id == sa.bindparam("row")).values(text=sa.bindparam("text_"))

Work = Callable[[Database, int], Awaitable[None]]


async def read(db: Database, number: int) -> None:
    """One row by its key."""
    async with db.read() as tx:
        await tx.one(GET, row=number % ROWS)


async def write(db: Database, number: int) -> None:
    """One row changed."""
    async with db.write() as tx:
        await tx.execute(SET, row=number % ROWS, text_=f"text {number}")


async def rate(db: Database, work: Work, at_once: int) -> float:
    """How often a second."""
    deadline, done = perf_counter() + SECONDS, 0

    async def one(number: int) -> None:
        nonlocal done
        while perf_counter() < deadline:
            number += at_once
            await work(db, number)
            done += 1

    began = perf_counter()
    await asyncio.gather(*(one(number) for number in range(at_once)))
    return done / (perf_counter() - began)


def opened(url: str, *, pooled: bool) -> Database:
    """With 20 connections."""
    settings = Settings("postgres", (Shard("0", (Node("db", url, pooled=pooled),)),), pool=20)
    return Database(settings, passwords={}, events=Events(), ids=Ids(), headers=lambda: "{}")


async def measure(direct: str, pooled: str) -> None:
    """Print a line for each case: the median of its rounds."""
    both = [opened(direct, pooled=False), opened(pooled, pooled=True)]
    for db in both:
        await db.open()
    for work in (read, write):
        for at_once in (1, 20):
            found: list[list[float]] = [[], []]
            for _ in range(ROUNDS):
                for db, rates in zip(both, found, strict=True):
                    rates.append(await rate(db, work, at_once))
            middle = [statistics.median(rates) for rates in found]
            print(f"{work.__name__} by {at_once}: direct {middle[0]:,.0f}/s, pooled {middle[1]:,.0f}/s")
    for db in both:
        await db.close()


def main() -> None:
    """Everything, on a PostgreSQL that keeps what it has acknowledged."""
    databases = PostgresDatabases()
    pooler = Pooler(databases.server)
    try:
        pooler.start()
        direct = databases.create("pooler")
        databases.server.execute(
            f"CREATE TABLE rows AS SELECT id, 'text' AS text FROM generate_series(0, {ROWS - 1}) AS id",
            "pooler",
        )
        databases.server.execute("ALTER TABLE rows ADD PRIMARY KEY (id)", "pooler")
        for name, value in machine.describe().items():
            print(f"{name}: {value}")
        asyncio.run(measure(direct, pooler.url(direct)))
    finally:
        pooler.stop()
        databases.close()


if __name__ == "__main__":
    main()

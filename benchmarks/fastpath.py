"""The fast path of `tx`: single rows by primary key, against the bare drivers, in one process.

Routing, request scope and metrics are included: the reads run inside a request's scope, with
Outgrow's telemetry attached as the middleware attaches it. One read at a time, all on one core,
PostgreSQL too. Every case reads the same rows in the same order, and one column of each.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import asyncpg
import sqlalchemy as sa
import uvloop

from benchmarks import machine, report, versions
from benchmarks.servers import open_databases
from outgrow import Outgrow, endpoints
from outgrow.runtime import scope as request
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.scope import Scope
from outgrow.runtime.telemetry import tracecontext

ROWS = 10_000
READS_EACH = 20
"""Reads in the scope of one request: a scope keeps no more than 50 spans, and then a read would cost less."""

Case = Callable[[Sequence[int]], Awaitable[None]]

metadata = sa.MetaData()
TABLES = {
    "tiny": sa.Table(
        "tiny",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
    ),
    "realistic": sa.Table(
        "realistic",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("author_id", sa.BigInteger, nullable=False),
        sa.Column("favourites", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
    ),
}
STATEMENTS = {
    name: sa.select(table).where(table.c.id == sa.bindparam("row_id")) for name, table in TABLES.items()
}


@dataclass(frozen=True)
class Plan:
    """How often, and how many reads of each case in a round."""

    rounds: int
    reads: int


def run(*, quick: bool = False) -> str:
    """Both tables, as Markdown."""
    plan = Plan(rounds=3, reads=300) if quick else Plan(rounds=15, reads=4_000)
    with machine.pinned(machine.server_core()):
        return "\n\n".join(uvloop.run(_engine(engine, plan)) for engine in ("postgres", "sqlite"))


async def _engine(engine: str, plan: Plan) -> str:
    databases = open_databases(engine)
    try:
        with versions.scratch() as directory:
            url = databases.create("fastpath")
            await migrate(url, None)
            await _fill(url)
            document = endpoints.read(
                versions.endpoints_document(url, Path(directory), cache=False, access_log=False)
            )
            assert document.secrets_file is not None
            og = Outgrow(document, endpoints.read_secrets(document.secrets_file))
            og.wrap(_nothing)  # attaches the telemetry
            async with og:
                measure = _on_postgres if engine == "postgres" else _on_sqlite
                return await measure(url, og, plan)
    finally:
        databases.close()


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that is never asked."""


async def _fill(url: str) -> None:
    engine = sa.create_engine(url) if url.startswith("sqlite") else None
    words = [f"word{number}" for number in range(40)]
    rows = {name: [_row(table, number, words) for number in range(ROWS)] for name, table in TABLES.items()}
    if engine is not None:
        with engine.begin() as connection:
            metadata.create_all(connection)
            for name, table in TABLES.items():
                connection.execute(table.insert(), rows[name])
        engine.dispose()
        return
    connection = await asyncpg.connect(url)
    for name, table in TABLES.items():
        await connection.execute(
            str(sa.schema.CreateTable(table).compile(dialect=sa.dialects.postgresql.dialect()))
        )
        columns = [column.name for column in table.columns]
        values = [tuple(row[column] for column in columns) for row in rows[name]]
        await connection.copy_records_to_table(name, records=values, columns=columns)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


def _row(table: sa.Table, number: int, words: Sequence[str]) -> dict[str, Any]:
    """Texts of the lengths that an article has."""
    rng = random.Random(number)
    lengths = {"body": 150, "description": 14}
    return {
        column.name: number
        if column.name == "id"
        else rng.randrange(1000)
        if isinstance(column.type, sa.Integer)
        else " ".join(rng.choices(words, k=lengths.get(column.name, 4)))
        for column in table.columns
    }


def _sql(name: str, mark: str) -> str:
    columns = ", ".join(column.name for column in TABLES[name].columns)
    return f"SELECT {columns} FROM {name} WHERE id = {mark}"


async def _on_postgres(url: str, og: Outgrow, plan: Plan) -> str:
    async def keep(connection: Any) -> None:
        """No reset."""

    pool = await asyncpg.create_pool(url, min_size=4, max_size=4)
    bare = await asyncpg.create_pool(url, min_size=4, max_size=4, reset=keep)
    held = [await asyncpg.connect(url) for _ in range(4)]
    try:
        parts = []
        for name in TABLES:
            cases = {
                "asyncpg, its own pool": _pool(pool, _sql(name, "$1")),
                "asyncpg, its own pool without reset": _pool(bare, _sql(name, "$1")),
                "limit: prepared on held connections": await _held(held, _sql(name, "$1")),
                "outgrow": _outgrow(og, STATEMENTS[name]),
            }
            rates = await _measure(cases, plan, perf_counter)
            parts.append(_table("PostgreSQL", name, rates, "asyncpg, its own pool"))
            ratio = report.median(_ratios(rates, "outgrow", "asyncpg, its own pool"))
            parts.append(report.verdict("outgrow to asyncpg's pool, rates", ratio, 2.0, at_least=True))
        return "\n\n".join(parts)
    finally:
        await pool.close()
        await bare.close()
        for connection in held:
            await connection.close()


async def _on_sqlite(url: str, og: Outgrow, plan: Plan) -> str:
    raw = sqlite3.connect(og.endpoints.database.shards[0].nodes[0].url.removeprefix("sqlite:///"))
    raw.row_factory = sqlite3.Row  # a row with names, which is what tx gives
    for pragma in ("cache_size = -8000", "query_only = ON"):
        raw.execute(f"PRAGMA {pragma}")
    try:
        parts = []
        for name in TABLES:
            cases = {
                "sqlite3": _raw(raw, _sql(name, "?")),
                "outgrow": _outgrow(og, STATEMENTS[name]),
            }
            # CPU time: nothing is waited for, and another process on the core does not count.
            rates = await _measure(cases, plan, thread_time)
            parts.append(_table("SQLite", name, rates, "sqlite3"))
            ratio = report.median(_ratios(rates, "sqlite3", "outgrow"))
            parts.append(report.verdict("time of outgrow to time of sqlite3", ratio, 1.3, at_least=False))
        return "\n\n".join(parts)
    finally:
        raw.close()


def _pool(pool: Any, sql: str) -> Case:
    async def case(numbers: Sequence[int]) -> None:
        for number in numbers:
            async with pool.acquire() as connection:
                row = await connection.fetchrow(sql, number)
            assert row[0] == number

    return case


async def _held(connections: Sequence[Any], sql: str) -> Case:
    free = [await connection.prepare(sql) for connection in connections]

    async def case(numbers: Sequence[int]) -> None:
        for number in numbers:
            statement = free.pop()
            try:
                row = (await statement.fetch(number))[0]
            finally:
                free.append(statement)
            assert row[0] == number

    return case


def _raw(connection: sqlite3.Connection, sql: str) -> Case:
    async def case(numbers: Sequence[int]) -> None:
        for number in numbers:
            row = connection.execute(sql, (number,)).fetchone()
            assert row[0] == number

    return case


def _outgrow(og: Outgrow, statement: sa.Select[Any]) -> Case:
    async def case(numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), READS_EACH):
            trace_id, span_id = tracecontext.new_ids()
            token = request.current.set(Scope(trace_id=trace_id, span_id=span_id))
            for number in numbers[start : start + READS_EACH]:
                async with og.db.read(key=number) as tx:
                    row = await tx.one(statement, row_id=number)
                assert row is not None and row[0] == number
            request.current.reset(token)

    return case


async def _measure(
    cases: Mapping[str, Case], plan: Plan, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Rates of each case, round by round, the cases taking turns."""
    rng = random.Random(7)
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        await case(range(200))
    for number in range(plan.rounds):
        rows = [rng.randrange(ROWS) for _ in range(plan.reads)]
        turn = number % len(cases)
        names = [*cases][turn:] + [*cases][:turn]
        for name in names:
            started = clock()
            await cases[name](rows)
            rates[name].append(plan.reads / (clock() - started))
    return rates


def _ratios(rates: Mapping[str, Sequence[float]], one: str, other: str) -> list[float]:
    return [a / b for a, b in zip(rates[one], rates[other], strict=True)]


def _table(engine: str, row: str, rates: Mapping[str, Sequence[float]], base: str) -> str:
    lines = [
        [
            name,
            report.spread([1e6 / rate for rate in found], ".1f"),
            report.spread(_ratios(rates, name, base)),
        ]
        for name, found in rates.items()
    ]
    columns = len(TABLES[row].columns)
    head = [f"{engine}, {row} row ({columns} columns)", "us a read", f"rate to that of {base}"]
    return report.table(head, lines)

"""One sqlite3 connection: what runs on the event loop, what in a thread, and when it is interrupted.

A statement runs on the event loop itself, since most take a few microseconds and a thread costs
fifty. One that takes longer than 5 ms is interrupted, run again in a thread, and goes there at
once for a while; so a slow query never stops the other requests. COMMIT waits for the disk in a
thread.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from time import perf_counter, thread_time
from typing import Any, Protocol, TypeVar

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from outgrow import errors
from outgrow.runtime.bookmark import Position
from outgrow.runtime.database.at_once import INLINE_LOOKS
from outgrow.runtime.database.session import BlockEngine
from outgrow.runtime.database.sqlite_errors import REFUSED, interrupted
from outgrow.runtime.database.statement import Compiled

T = TypeVar("T")

INLINE_S = 0.005
"""How long a statement may hold the event loop before it moves to a thread."""

THREAD_RUNS = 16
"""So many quick runs in a thread bring a statement back: one may have been slow by chance, or by the disk."""

PROGRESS_STEPS = 4_000
"""Virtual machine instructions between two looks: about 0.2 ms."""

INLINE_WAIT_S = 0.05
"""For what is not work: the disk."""

UNLIMITED = 1 << 60

LOCK_RETRY_MAX_S = 0.05


class Row(sqlite3.Row):
    """sqlite3's row, with its columns as attributes too."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except IndexError:
            raise AttributeError(
                f"the row has no column {name!r}; it has: {', '.join(self.keys())}"
            ) from None


class Dialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's SQLite dialect over our own connection, whose transaction is not SQLAlchemy's."""

    is_async = True
    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        """The block has begun already."""

    def do_commit(self, dbapi_connection: Any) -> None:
        """The block commits."""

    def do_rollback(self, dbapi_connection: Any) -> None:
        """The block rolls back."""


class Cursor(sqlite3.Cursor):
    """A cursor as SQLAlchemy's asyncio layer wants it."""

    async def _async_soft_close(self) -> None:
        """Its rows are all there already."""


class RawConnection(sqlite3.Connection):
    """sqlite3's connection, giving out such cursors."""

    def cursor(self, factory: type[sqlite3.Cursor] | None = None) -> sqlite3.Cursor:  # type: ignore[override]
        """A cursor; SQLAlchemy asks for it without arguments."""
        return super().cursor(factory or Cursor)


class Server(Protocol):
    """Whose connection it is."""

    name: str
    dialect: Dialect
    durable: bool
    statement_timeout_s: float
    checkout_timeout_s: float
    position: Position
    compiled: MutableMapping[Any, Any]
    timeline: int

    def in_thread(self, call: Callable[[], T]) -> Awaitable[T]: ...
    def translate(self, error: Exception, label: str) -> errors.DatabaseError: ...


class Connection:
    """One sqlite3 connection, used by one block at a time."""

    __slots__ = ("_engine", "_node", "began", "cursor", "execute", "looks", "raw", "surplus", "writer")

    def __init__(self, node: Server, raw: sqlite3.Connection, *, writer: bool, surplus: bool) -> None:
        self._node = node
        self._engine: BlockEngine | None = None
        self.raw = raw
        self.writer = writer
        self.surplus = surplus
        self.cursor = raw.cursor(sqlite3.Cursor)
        self.execute = self.cursor.execute  # found once: reads in at_once.py are counted in microseconds
        self.began = 0.0
        self.looks = UNLIMITED
        raw.set_progress_handler(self._check_clock, PROGRESS_STEPS)

    def _allow(self) -> None:
        """From now on only the statement timeout interrupts."""
        self.began, self.looks = perf_counter(), UNLIMITED

    def _check_clock(self) -> int:
        self.looks -= 1
        wait_s = INLINE_WAIT_S if self.looks < INLINE_LOOKS else self._node.statement_timeout_s
        return self.looks < 0 or perf_counter() > self.began + wait_s

    async def rows(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> list[Row]:
        """Every row. A result processor's value takes the place of the driver's."""
        if compiled.expanding:
            sql, arguments = compiled.expand(parameters)
        else:
            sql, arguments = compiled.sql, compiled.arguments(parameters)
        if compiled.slow or self.writer:
            rows = await self._run(compiled, lambda: self.cursor.execute(sql, arguments).fetchall())
        else:
            self.began, self.looks = perf_counter(), INLINE_LOOKS
            try:
                rows = self.cursor.execute(sql, arguments).fetchall()
            except REFUSED as error:
                self.refused(compiled, error)
                rows = await self._run(compiled, lambda: self.cursor.execute(sql, arguments).fetchall())
        return self.processed(compiled, rows) if compiled.results else rows

    def refused(self, compiled: Compiled, error: BaseException) -> None:
        """Raises what a failed statement means, unless it was only slow: then a thread is to try again."""
        if not isinstance(error, REFUSED):
            raise error
        if not interrupted(error):
            raise self._node.translate(error, compiled.label) from error
        compiled.slow = THREAD_RUNS

    async def count(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> int:
        """How many rows it changed; of a SELECT, how many it found."""
        sql, arguments = (
            compiled.expand(parameters)
            if compiled.expanding
            else (compiled.sql, compiled.arguments(parameters))
        )

        def call() -> int:
            found = len(self.cursor.execute(sql, arguments).fetchall())
            return found if self.cursor.rowcount < 0 else self.cursor.rowcount

        return await self._run(compiled, call)

    async def many(self, compiled: Compiled, parameters: Sequence[Mapping[str, Any]], /) -> None:
        """One execution for each set of parameters; in a thread when there are many."""
        arguments = [compiled.arguments(each) for each in parameters]
        await self._run(
            compiled, lambda: self.cursor.executemany(compiled.sql, arguments), thread=len(arguments) > 100
        )

    async def begin(self, mode: str, /) -> None:
        """`write` takes the write lock at once, waiting for another process's.

        `snapshot` fixes what is seen.
        """
        if mode == "write":
            await self._begin_immediate()
        else:
            self.cursor.execute("BEGIN")
            self.cursor.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()

    async def commit(self, *, doomed: bool) -> Position:
        """Raise the commit counter, commit, and return the position. Raises Conflict when doomed."""
        if doomed:
            await self.rollback()
            raise errors.Conflict(
                "the transaction was rolled back, because a statement in it had failed",
                node=self._node.name,
                hint="let the error leave the block, or catch it around `async with tx.savepoint():`",
            )
        self._allow()

        try:
            # Only what waits for the disk goes to the thread: there, each step waits for the interpreter too.
            timeline, commits = self.cursor.execute(
                "UPDATE outgrow_position SET commits = commits + 1 RETURNING timeline, commits"
            ).fetchall()[0]
            await self._node.in_thread(self._commit) if self._node.durable else self._commit()
            position = Position(self._node.timeline + timeline, commits)
        except (sqlite3.Error, IndexError) as error:
            if self.raw.in_transaction:
                self.cursor.execute("ROLLBACK")
            raise self._node.translate(error, "COMMIT") from error
        self._node.position = max(self._node.position, position)
        return position

    def _commit(self) -> None:
        self.cursor.execute("COMMIT")

    async def rollback(self) -> None:
        """End the transaction, if SQLite has not done so itself."""
        if self.raw.in_transaction:
            self._allow()
            self.cursor.execute("ROLLBACK")

    async def savepoint(self, verb: str, name: str, /) -> None:
        """SAVEPOINT, ROLLBACK TO SAVEPOINT or RELEASE SAVEPOINT."""
        self._allow()
        self.cursor.execute(f"{verb} {name}")

    def engine(self) -> BlockEngine:
        """SQLAlchemy's, on this connection's transaction."""
        self._allow()
        if self._engine is None:
            self._engine = BlockEngine(self._node.dialect, lambda: self.raw, self._node.compiled)
        return self._engine

    async def _begin_immediate(self) -> None:
        deadline = perf_counter() + self._node.checkout_timeout_s
        self._allow()
        delay = 0.001
        while True:
            try:
                self.cursor.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or perf_counter() > deadline:
                    raise self._node.translate(error, "BEGIN") from error
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, LOCK_RETRY_MAX_S)

    async def _run(self, compiled: Compiled, call: Callable[[], T], *, thread: bool = False) -> T:
        """Inside a write block an interrupt would roll everything back, so what was slow once is
        run in a thread the next time, and only the statement timeout interrupts."""
        self._allow()

        def timed() -> tuple[T, float]:
            started = thread_time()  # its own CPU time: not the queue, not another process on this core
            return call(), thread_time() - started

        try:
            result, took = await self._node.in_thread(timed) if thread or compiled.slow else timed()
        except REFUSED as error:
            raise self._node.translate(error, compiled.label) from error
        if took > INLINE_S / 2:
            compiled.slow = THREAD_RUNS
        elif compiled.slow:
            compiled.slow -= 1
        return result

    def processed(self, compiled: Compiled, rows: list[Row]) -> list[Row]:
        """The rows, their values as SQLAlchemy's types want them."""
        processed = []
        for row in rows:
            values = list(row)
            for index, processor in compiled.results:
                values[index] = processor(values[index])
            processed.append(Row(self.cursor, tuple(values)))
        return processed

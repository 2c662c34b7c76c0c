"""SQLite: one file, one writer, as many readers as wanted.

A statement runs on the event loop itself, since most take a few microseconds and a thread costs
fifty. One that takes longer than 5 ms is interrupted, run again in a thread, and goes there at
once for a while; so a slow query never stops the other requests. COMMIT waits for the disk in a
thread. The file is in WAL mode: readers never wait for the writer.

The position is a commit counter in the table outgrow_position, raised by each transaction.
"""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.asyncio import AsyncSession

from outgrow import endpoints, errors
from outgrow.runtime.bookmark import ZERO, Position
from outgrow.runtime.database.at_once import INLINE_LOOKS, ReadAtOnce
from outgrow.runtime.database.session import BlockSession, session_on
from outgrow.runtime.database.statement import Compiled, Compiler
from outgrow.runtime.events import Events

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
SWITCH_S = 0.0005

LOCK_RETRY_MAX_S = 0.05

_REFUSED = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""SQLite's own errors, and the module's for what it cannot hand over: an integer of more than 64 bits, half
of a surrogate pair."""

_UNIQUE = re.compile(r"UNIQUE constraint failed: (?:index '(?P<index>[^']+)'|(?P<columns>.+))")


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


class Connection:
    """One sqlite3 connection, used by one block at a time."""

    __slots__ = ("_node", "began", "cursor", "looks", "raw", "surplus", "writer")

    def __init__(self, node: SQLite, raw: sqlite3.Connection, *, writer: bool, surplus: bool) -> None:
        self._node = node
        self.raw = raw
        self.writer = writer
        self.surplus = surplus
        self.cursor = raw.cursor(sqlite3.Cursor)
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
            except _REFUSED as error:
                self.refused(compiled, error)
                rows = await self._run(compiled, lambda: self.cursor.execute(sql, arguments).fetchall())
        return self.processed(compiled, rows) if compiled.results else rows

    def refused(self, compiled: Compiled, error: BaseException) -> None:
        """Raises what a failed statement means, unless it was only slow: then a thread is to try again."""
        if not isinstance(error, _REFUSED):
            raise error
        if not _interrupted(error):
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

    def session(self) -> AsyncSession:
        """A SQLAlchemy session on this connection's transaction."""
        self._allow()
        return session_on(self._node.dialect, lambda: self.raw, BlockSession)

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
        except _REFUSED as error:
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


class SQLite:
    """The node: a file, its writer and its readers."""

    engine = "sqlite"
    read = ReadAtOnce

    def __init__(
        self, node: endpoints.Node, settings: endpoints.Database, password: str | None, events: Events
    ) -> None:
        self.name = node.name
        self.path = file_of(node.url)
        self.dialect = Dialect()
        self.dialect.dbapi = sqlite3  # type: ignore[assignment]
        self.compiler = Compiler(self.dialect, partial(events.query_finished.bound, node.name))
        self.durable = settings.durability == "full"
        self.statement_timeout_s = settings.statement_timeout_s
        self.checkout_timeout_s = settings.checkout_timeout_s
        self.position = ZERO
        self.timeline = settings.shards[0].timeline
        self._events = events
        self._size = settings.pool
        self.idle: list[Connection] = []
        self._readers = 0
        self._kept = 0
        self.done: asyncio.Future[None]
        self._writer: Connection | None = None
        self._writing = asyncio.Lock()
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Open the file, which need not exist. Raises Unavailable when it cannot be."""
        # A COMMIT in its thread takes the interpreter's lock many times. At the usual 5 ms for each, a loop
        # that never rests made it wait for seconds, and every other writer with it.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self.done = asyncio.get_running_loop().create_future()
        self.done.set_result(None)
        self._threads = ThreadPoolExecutor(min(self._size, 8), thread_name_prefix="outgrow-sqlite")
        self._writer = self._connected(self._open_writer(), writer=True)
        try:
            row = self._writer.raw.execute("SELECT timeline, commits FROM outgrow_position").fetchone()
            self.position = Position(self.timeline + row[0], row[1]) if row else ZERO
        except sqlite3.OperationalError:
            self.position = ZERO  # not migrated yet: the first write says so

    async def close(self) -> None:
        """Close every connection; a COMMIT that is under way is finished first."""
        async with self._writing:
            if self._threads is not None:
                self._threads.shutdown()
            for connection in [*self.idle, *([self._writer] if self._writer else [])]:
                self._close(connection)
            self._readers -= len(self.idle)
            self._kept -= len(self.idle)
            self.idle, self._writer, self._threads = [], None, None

    def take(self) -> Connection | None:
        """An idle reader, at once."""
        return self.idle.pop() if self.idle else None

    async def acquire(self) -> Connection:
        """A reader, refused every write by SQLite itself."""
        connection = self._connected(self._open_reader(), surplus=self._kept >= self._size)
        self._readers += 1
        self._kept += not connection.surplus
        return connection

    async def acquire_writer(self) -> Connection:
        """The writer, in turn. Raises Unavailable when its turn does not come in time."""
        started = perf_counter()
        if self._writing.locked():
            try:
                async with asyncio.timeout(self.checkout_timeout_s):
                    await self._writing.acquire()
            except TimeoutError:
                raise errors.Unavailable(
                    f"other writers held the database for {self.checkout_timeout_s:g} s",
                    node=self.name,
                    hint="keep write blocks short: no network call, no sleep inside them",
                ) from None
            self._events.connection_waited(self.name, perf_counter() - started)
        else:
            await self._writing.acquire()
        try:
            if self._writer is None:
                # The one before may still be letting go of the file, in a thread of its own.
                self._writer = self._connected(await self.in_thread(self._open_writer), writer=True)
        except BaseException:
            self._writing.release()
            raise
        return self._writer

    def release(self, connection: Connection, /, *, broken: bool) -> None:
        """Take a connection back. A broken one may still be at work in a thread: it is closed there."""
        if broken:
            connection.raw.interrupt()
            if self._threads is not None:
                self._threads.submit(self._close, connection)
        if connection.writer:
            if broken:
                self._writer = None
            self._writing.release()
            return
        if not broken and not connection.surplus:
            self.idle.append(connection)
            return
        self._readers -= 1
        self._kept -= not connection.surplus
        if not broken:
            self._close(connection)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run it beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def check(self) -> str:
        """For the deep health check. Raises DatabaseError when the file cannot be read."""
        connection = self.take() or await self.acquire()
        try:
            connection.raw.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except sqlite3.Error as error:
            raise self.translate(error, "check") from error
        finally:
            self.release(connection, broken=False)
        return f"{self.path.name}, {self.path.stat().st_size / 1e6:.1f} MB"

    def resize(self, connections: int) -> None:
        """At most so many readers from now on; those that there are stay."""
        self._size = connections

    def figures(self) -> dict[str, int]:
        """Connections by state."""
        return {
            "idle": len(self.idle),
            "used": self._readers - len(self.idle) + self._writing.locked(),
            "max": self._size + 1,
        }

    def translate(self, error: Exception, label: str) -> errors.DatabaseError:
        """The driver's error in Outgrow's words; the driver's stays the cause."""
        return _translate(error, label, self.name, self.statement_timeout_s)

    def _open_writer(self) -> RawConnection:
        return self._open_file("PRAGMA busy_timeout = 0")  # it waits for its turn without holding the loop

    def _open_reader(self) -> RawConnection:
        return self._open_file("PRAGMA query_only = ON")

    def _open_file(self, *more: str) -> RawConnection:
        try:
            raw = sqlite3.connect(
                f"file:{quote(str(self.path))}?mode=rwc",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
                factory=RawConnection,
                timeout=self.checkout_timeout_s,
            )
            raw.row_factory = Row
            for pragma in (
                "PRAGMA journal_mode = WAL",
                f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}",
                "PRAGMA foreign_keys = ON",
                "PRAGMA cache_size = -8000",
                "PRAGMA temp_store = MEMORY",
                "PRAGMA mmap_size = 268435456",
                *more,
            ):
                raw.execute(pragma)
        except sqlite3.Error as error:
            raise errors.Unavailable(
                f"the file {self.path} cannot be opened: {error}",
                node=self.name,
                hint="check that its folder exists and that this user may write there",
            ) from error
        return raw

    def _connected(self, raw: RawConnection, *, writer: bool = False, surplus: bool = False) -> Connection:
        self._events.connection_opened(self.name)
        return Connection(self, raw, writer=writer, surplus=surplus)

    def _close(self, connection: Connection) -> None:
        connection.raw.close()
        self._events.connection_closed(self.name)


def file_of(url: str) -> Path:
    """The file of a URL like sqlite:///relative.db or sqlite:////absolute.db."""
    return Path(url.removeprefix("sqlite:///"))


def _interrupted(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def _translate(error: Exception, label: str, node: str, timeout_s: float) -> errors.DatabaseError:
    code = getattr(error, "sqlite_errorcode", None)
    text = f"{label}: {error}"
    if isinstance(error, IndexError) or "no such table: outgrow_" in str(error):
        return errors.SchemaMissing(
            "Outgrow's own tables are missing",
            node=node,
            hint="run `outgrow migrate` (`outgrow up` does it by itself)",
        )
    if isinstance(error, sqlite3.IntegrityError):
        return _integrity(error, code, text, node)
    if code == sqlite3.SQLITE_INTERRUPT:
        return errors.StatementTimeout(f"{label} ran for more than {timeout_s:g} s", node=node)
    if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY:
        return errors.ReadOnlyViolation(
            f"{label}: this is a read block", node=node, hint="write inside `async with og.db.write():`"
        )
    if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return errors.Unavailable(f"{label}: another process holds the write lock", node=node)
    return errors.DatabaseError(text, node=node)


def _integrity(
    error: sqlite3.IntegrityError, code: int | None, text: str, node: str
) -> errors.IntegrityError:
    if code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
        found = _UNIQUE.search(str(error))
        columns = found["columns"] if found and found["columns"] else ""
        return errors.UniqueViolation(
            text,
            node=node,
            constraint=(found["index"] or "") if found else "",
            columns=tuple(column.strip().rpartition(".")[2] for column in columns.split(",") if column),
        )
    tail = str(error).rpartition(": ")[2]
    if code == sqlite3.SQLITE_CONSTRAINT_NOTNULL:
        return errors.NotNullViolation(text, node=node, columns=(tail.rpartition(".")[2],))
    if code == sqlite3.SQLITE_CONSTRAINT_CHECK:
        return errors.CheckViolation(text, node=node, constraint=tail)
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return errors.ForeignKeyViolation(text, node=node)
    return errors.IntegrityError(text, node=node)

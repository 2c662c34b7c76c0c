"""SQLite: one file, one writer, as many readers as wanted.

The file is in WAL mode: readers never wait for the writer. The position is a commit counter in the
table outgrow_position, raised by each transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeVar
from urllib.parse import quote

from outgrow import endpoints, errors
from outgrow.runtime.bookmark import ZERO, Position
from outgrow.runtime.database import sqlite_errors
from outgrow.runtime.database.at_once import ReadAtOnce
from outgrow.runtime.database.session import compiled_cache
from outgrow.runtime.database.sqlite_connection import Connection, Dialect, RawConnection, Row
from outgrow.runtime.database.statement import Compiler
from outgrow.runtime.events import Events

T = TypeVar("T")

SWITCH_S = 0.0005


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
        self.compiled = compiled_cache()
        self.position = ZERO
        self.timeline = settings.shards[0].timeline
        self._events = events
        self._size = settings.pool
        self.idle: list[Connection] = []
        self._readers = 0
        self._kept = 0
        self.done: asyncio.Future[None]
        self._writer: Connection | None = None
        self.quick: Connection | None = None
        """The writer while nobody writes, for single SELECTs that end before anything else runs. It still has
        its pages after a commit; a reader has to read its own again."""
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
        self.quick = self._writer = self._connected(self._open_writer(), writer=True)
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
            self.idle, self._writer, self.quick, self._threads = [], None, None, None

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
        self.quick = None
        return self._writer

    def release(self, connection: Connection, /, *, broken: bool) -> None:
        """Take a connection back. A broken one may still be at work in a thread: it is closed there."""
        if broken:
            connection.raw.interrupt()
            if self._threads is not None:
                self._threads.submit(self._close, connection)
        if connection.writer:
            self._writer = self.quick = None if broken else connection
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
        return sqlite_errors.translate(error, label, self.name, self.statement_timeout_s)

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

"""PostgreSQL over asyncpg: a pool of held connections with prepared statements.

The pool is a plain list, because asyncpg's own costs as much as a single-row query: it resets the
connection by a round trip on each release. Nothing here leaves session state behind, so there is
nothing to reset. Connections are read-only by default, which the server enforces; a write block
begins with BEGIN READ WRITE.

COMMIT and the position after it take one round trip: the position comes back as a ParameterStatus
message, which PostgreSQL sends for application_name whenever it changes.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import msgspec
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncSession

from outgrow import endpoints, errors
from outgrow.runtime.bookmark import ZERO, Position
from outgrow.runtime.database.session import BlockSession, session_on
from outgrow.runtime.database.statement import Compiled, Compiler
from outgrow.runtime.database.unit import Read
from outgrow.runtime.events import Events

PREPARED_MAX = 256
"""Prepared statements a connection keeps; the oldest goes first. The server holds a plan for each."""

CONNECT_TIMEOUT_S = 3.0
IDLE_IN_BLOCK_MS = 60_000
RECONNECT_DELAY_MAX_S = 0.5
POSITION_PREFIX = "outgrow "

_COMMIT = (
    "COMMIT; SELECT pg_catalog.set_config('application_name', "
    f"'{POSITION_PREFIX}' || pg_catalog.pg_current_wal_insert_lsn(), false)"
)
BEGINS = {"write": "BEGIN READ WRITE", "snapshot": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
_IDENTIFY = (
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN NULL ELSE "
    "pg_walfile_name(pg_current_wal_insert_lsn()) END, "
    "CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn()::text END"
)
_KEY = re.compile(r"Key \((?P<columns>[^=]+)\)=\(")
_CONNECTION_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError, OSError)
_NOT_SERVING = ("57P01", "57P02", "57P03", "25006", "53300")


class Row(asyncpg.Record):  # type: ignore[misc]  # asyncpg is untyped
    """asyncpg's record, with its columns as attributes too."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"the row has no column {name!r}; it has: {', '.join(self.keys())}"
            ) from None


class ProcessedRow(tuple[Any, ...]):
    """A row whose values SQLAlchemy's types have processed; asyncpg's own cannot be built here."""

    _names: dict[str, int]

    def __new__(cls, values: Sequence[Any], names: dict[str, int]) -> ProcessedRow:
        row = super().__new__(cls, values)
        row._names = names
        return row

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._names[key] if isinstance(key, str) else key)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getitem__(self._names[name])
        except KeyError:
            raise AttributeError(
                f"the row has no column {name!r}; it has: {', '.join(self._names)}"
            ) from None

    def keys(self) -> Sequence[str]:
        """The columns' names."""
        return list(self._names)


class Connection:
    """One asyncpg connection, used by one block at a time."""

    __slots__ = ("_node", "_prepared", "raw", "timeline")

    def __init__(self, node: Postgres, raw: asyncpg.Connection[Row], timeline: int) -> None:
        self._node = node
        self.raw = raw
        self.timeline = timeline
        self._prepared: dict[int, tuple[Compiled, asyncpg.prepared_stmt.PreparedStatement[Row]]] = {}

    async def rows(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> list[Row]:
        """Every row."""
        try:
            if compiled.expanding:
                sql, arguments = compiled.expand(parameters)
                rows = await self.raw.fetch(sql, *arguments)
            else:
                held = self._prepared.get(id(compiled))
                prepared = held[1] if held is not None else await self._prepare(compiled)
                rows = await prepared.fetch(*compiled.arguments(parameters))
        except errors.OutgrowError:
            raise
        except Exception as error:
            self._prepared.pop(id(compiled), None)
            raise self._translate(error, compiled.label) from error
        return processed(compiled, rows)

    async def count(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> int:
        """How many rows it changed; of a SELECT, how many it found."""
        try:
            if compiled.expanding:
                sql, arguments = compiled.expand(parameters)
                status = await self.raw.execute(sql, *arguments)
            else:
                held = self._prepared.get(id(compiled))
                prepared = held[1] if held is not None else await self._prepare(compiled)
                await prepared.fetch(*compiled.arguments(parameters))
                status = prepared.get_statusmsg()
        except errors.OutgrowError:
            raise
        except Exception as error:
            self._prepared.pop(id(compiled), None)
            raise self._translate(error, compiled.label) from error
        return changed(status)

    async def many(self, compiled: Compiled, parameters: Sequence[Mapping[str, Any]], /) -> None:
        """One execution for each set of parameters, pipelined."""
        try:
            held = self._prepared.get(id(compiled))
            prepared = held[1] if held is not None else await self._prepare(compiled)
            await prepared.executemany([compiled.arguments(each) for each in parameters])
        except errors.OutgrowError:
            raise
        except Exception as error:
            self._prepared.pop(id(compiled), None)
            raise self._translate(error, compiled.label) from error

    async def begin(self, mode: str, /) -> None:
        """`write`, `snapshot`, or `read` behind a pooler."""
        try:
            await self.raw.execute(self._node.begins[mode])
        except Exception as error:
            raise self._translate(error, "BEGIN") from error

    async def commit(self, *, doomed: bool) -> Position:
        """Commit and return the position.

        Raises Conflict when doomed, Unavailable when the outcome is unknown.
        """
        if doomed:
            await self.rollback()
            raise errors.Conflict(
                "the transaction was rolled back, because a statement in it had failed",
                node=self._node.name,
                hint="let the error leave the block, or catch it around `async with tx.savepoint():`",
            )
        try:
            position = await self._commit()
        except Exception as error:
            raise self._translate(error, "COMMIT") from error
        self._node.position = max(self._node.position, position)
        return position

    async def _commit(self) -> Position:
        await self.raw.execute(_COMMIT)
        told = self.raw.get_settings().application_name
        if not told.startswith(POSITION_PREFIX):  # a proxy between us keeps ParameterStatus to itself
            told = POSITION_PREFIX + await self.raw.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        return Position(self.timeline, lsn(told[len(POSITION_PREFIX) :]))

    async def rollback(self) -> None:
        """End the transaction."""
        if self.raw.is_closed():
            return
        try:
            await self.raw.execute("ROLLBACK")
        except Exception as error:
            raise self._translate(error, "ROLLBACK") from error

    async def savepoint(self, verb: str, name: str, /) -> None:
        """SAVEPOINT, ROLLBACK TO SAVEPOINT or RELEASE SAVEPOINT."""
        try:
            await self.raw.execute(f"{verb} {name}")
        except Exception as error:
            raise self._translate(error, verb) from error

    def session(self) -> AsyncSession:
        """A SQLAlchemy session on this connection's transaction."""
        return session_on(self._node.dialect, self._adapted, BlockSession)

    def _adapted(self) -> AsyncAdapt_asyncpg_connection:
        adapted = AsyncAdapt_asyncpg_connection(
            self._node.dialect.dbapi,
            self.raw,
            prepared_statement_cache_size=0,
            prepared_statement_name_func=self._node.statement_name,
        )
        adapted.set_isolation_level("autocommit")  # the block, not SQLAlchemy, begins and ends it
        return adapted

    def _translate(self, error: Exception, label: str) -> errors.DatabaseError:
        translated = self._node.translate(error, label)
        if isinstance(translated, errors.Unavailable):
            self.raw.terminate()  # whatever state it is in, nobody is to get it again
        return translated

    async def _prepare(self, compiled: Compiled) -> asyncpg.prepared_stmt.PreparedStatement[Row]:
        prepared = await self.raw.prepare(compiled.sql)
        if len(self._prepared) >= PREPARED_MAX:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[id(compiled)] = (compiled, prepared)
        return prepared


class Postgres:
    """The node: a pool of connections to one server."""

    engine = "postgres"
    read: type[Read] = Read
    connection = Connection
    statement_name: Callable[[], str] | None = None
    """Names the prepared statements of `tx.session`; None leaves it to the driver."""

    def __init__(
        self, node: endpoints.Node, settings: endpoints.Database, password: str | None, events: Events
    ) -> None:
        self.name = node.name
        self.dialect = PGDialect_asyncpg()
        self.dialect.dbapi = PGDialect_asyncpg.import_dbapi()
        self.compiler = Compiler(self.dialect, partial(events.query_finished.bound, node.name))
        self.position = ZERO
        self.begins = BEGINS
        self._timeline = settings.shards[0].timeline
        self._url = node.url
        self._password = password
        self._events = events
        self._size = settings.pool
        self._statement_timeout_s = settings.statement_timeout_s
        self._checkout_timeout_s = settings.checkout_timeout_s
        self._free: list[Connection] = []
        self._opened = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Open the first connection. Raises Unavailable when the server cannot be reached in time."""
        self._closed = False
        self.release(await self.acquire(), broken=False)

    async def close(self) -> None:
        """Close every connection that is not in use; those in use follow when they come back."""
        self._closed = True
        free, self._free = self._free, []
        for connection in free:
            self._discard(connection)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CONNECT_TIMEOUT_S)

    def take(self) -> Connection | None:
        """An idle connection, at once."""
        while self._free:
            connection = self._free.pop()
            if not connection.raw.is_closed():
                return connection
            self._discard(connection)
        return None

    async def acquire(self) -> Connection:
        """A connection. Raises Unavailable when none can be had within database.checkout_timeout."""
        return self.take() or await self._wait_or_connect()

    async def acquire_writer(self) -> Connection:
        """The same: a write block's BEGIN READ WRITE lifts the read-only default."""
        return await self.acquire()

    def release(self, connection: Connection, /, *, broken: bool) -> None:
        """Take a connection back, for whoever waits longest."""
        if broken or self._closed or connection.raw.is_closed() or self._opened > self._size:
            self._discard(connection)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._free.append(connection)

    def resize(self, connections: int) -> None:
        """At most so many from now on: idle ones beyond that are closed, used ones when they come back."""
        self._size = connections
        while self._opened > self._size and self._free:
            self._discard(self._free.pop())
        for _ in range(self._size - self._opened):
            self._wake()

    def retire(self) -> None:
        """Close all idle connections: what one of them has just learnt holds for the rest."""
        free, self._free = self._free, []
        for connection in free:
            self._discard(connection)

    async def check(self) -> str:
        """For the deep health check. Raises DatabaseError when the server does not answer."""
        connection = await self.acquire()
        broken = True
        try:
            version = connection.raw.get_server_version()
            await connection.raw.execute("SELECT 1", timeout=CONNECT_TIMEOUT_S)
            broken = False
        except Exception as error:
            raise self.translate(error, "check") from error
        finally:
            self.release(connection, broken=broken)
        return f"PostgreSQL {version.major}.{version.micro}"

    def figures(self) -> dict[str, int]:
        """Connections by state."""
        idle = len(self._free)
        return {"idle": idle, "used": self._opened - idle, "max": self._size}

    def translate(self, error: Exception, label: str) -> errors.DatabaseError:
        """The driver's error in Outgrow's words. A server that stops serving retires the pool."""
        if isinstance(error, errors.DatabaseError):
            return error
        translated = _translate(error, label, self.name, self._statement_timeout_s)
        if isinstance(translated, errors.Unavailable):
            self.retire()
        return translated

    async def _wait_or_connect(self) -> Connection:
        started = perf_counter()
        deadline = started + self._checkout_timeout_s
        while True:
            if self._opened < self._size:
                connection: Connection | None = await self._connect(deadline)
            else:
                connection = await self._wait(deadline)
            if connection is not None:
                self._events.connection_waited(self.name, perf_counter() - started)
                return connection

    async def _wait(self, deadline: float) -> Connection | None:
        """A connection that another block gives back, or None when a place has become free."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        # A timer alone: asyncio.timeout() costs as much as the rest of the wait.
        timer = loop.call_later(deadline - perf_counter(), _give_up, waiter)
        self._waiters.append(waiter)
        try:
            return await waiter
        except _GaveUp:
            raise errors.Unavailable(
                f"all {self._size} connections were in use for {self._checkout_timeout_s:g} s",
                node=self.name,
                hint="keep blocks short, or raise database.pool in outgrow.toml",
            ) from None
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            timer.cancel()

    def _abandon(self, waiter: asyncio.Future[Connection | None]) -> None:
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            handed = waiter.result()
            if handed is None:
                self._wake()
            else:
                self.release(handed, broken=False)

    async def _connect(self, deadline: float) -> Connection:
        """A new connection, tried again with back-off while the server starts or restarts."""
        self._opened += 1
        delay = 0.02
        try:
            while True:
                try:
                    return await self._dial()
                except (asyncpg.PostgresError, *_CONNECTION_LOST, TimeoutError) as error:
                    left = deadline - perf_counter()
                    if left < delay or not _may_come_back(error):
                        raise _unreachable(error, self.name, self._url) from error
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, RECONNECT_DELAY_MAX_S)
        except BaseException:
            self._opened -= 1
            self._wake()
            raise

    async def _dial(self) -> Connection:
        raw = cast(
            "asyncpg.Connection[Row]",
            await asyncpg.connect(
                self._url,
                password=self._password,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=self._statement_timeout_s + 5,
                record_class=Row,
                **self._options(),
            ),
        )
        try:
            connection = await self._get_ready(raw)
        except BaseException:
            raw.terminate()
            raise
        self._events.connection_opened(self.name)
        return connection

    def _options(self) -> dict[str, Any]:
        """Of asyncpg.connect."""
        return {
            "server_settings": {
                "application_name": "outgrow",
                "default_transaction_read_only": "on",
                "statement_timeout": self.statement_timeout_ms,
                "idle_in_transaction_session_timeout": str(IDLE_IN_BLOCK_MS),
            }
        }

    @property
    def statement_timeout_ms(self) -> str:
        """As the server takes it."""
        return str(int(self._statement_timeout_s * 1000))

    async def _get_ready(self, raw: asyncpg.Connection[Row]) -> Connection:
        for kind in ("json", "jsonb"):
            await raw.set_type_codec(
                kind, schema="pg_catalog", encoder=_as_text, decoder=msgspec.json.decode, format="text"
            )
        standby, wal_file, position = await raw.fetchrow(_IDENTIFY)
        timeline = 0 if standby else self.timeline(wal_file)
        if not standby:
            self.position = max(self.position, Position(timeline, lsn(position)))
        return self.connection(self, raw, timeline)

    def timeline(self, wal_file: str) -> int:
        """That of a position in this file of the write-ahead log."""
        return self._timeline + int(wal_file[:8], 16)

    def _discard(self, connection: Connection) -> None:
        self._opened -= 1
        self._events.connection_closed(self.name)
        if not connection.raw.is_closed():
            task = asyncio.ensure_future(_close(connection.raw))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._wake()

    def _wake(self) -> None:
        """A place is free: the longest waiter may open a connection of its own."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class _GaveUp(Exception):
    """Nobody has given a connection back in time."""


def _give_up(waiter: asyncio.Future[Connection | None]) -> None:
    if not waiter.done():
        waiter.set_exception(_GaveUp())


def lsn(text: str) -> int:
    """'16/B374D848' as a number. Source: PostgreSQL manual, pg_lsn type."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


async def _close(raw: asyncpg.Connection[Row]) -> None:
    try:
        await raw.close(timeout=1.0)
    except Exception:
        raw.terminate()


def _as_text(value: str) -> str:
    """SQLAlchemy's JSON type has serialised the value already."""
    return value


def changed(status: str) -> int:
    """How many rows, as the server says it: "UPDATE 3"."""
    tail = status.rpartition(" ")[2]
    return int(tail) if tail.isdigit() else 0


def processed(compiled: Compiled, rows: list[Row]) -> list[Any]:
    """The rows as SQLAlchemy's types want them."""
    return _process(compiled, rows) if compiled.results and rows else rows


def _process(compiled: Compiled, rows: Sequence[Row]) -> list[Any]:
    names = {name: index for index, name in enumerate(rows[0].keys())}
    processed = []
    for row in rows:
        values = list(row)
        for index, processor in compiled.results:
            values[index] = processor(values[index])
        processed.append(ProcessedRow(values, names))
    return processed


def _may_come_back(error: BaseException) -> bool:
    """Not when the server has understood and refused: a wrong password stays wrong."""
    state = getattr(error, "sqlstate", None)
    if state == "08P01" and "authentication failed" in str(error):  # so PgBouncer says it
        return False
    return state is None or state in _NOT_SERVING or state.startswith("08")


def _unreachable(error: BaseException, node: str, url: str) -> errors.Unavailable:
    parts = urlsplit(url)
    place = f"{parts.username or ''}@{parts.hostname}:{parts.port or 5432}{parts.path}"
    hint = "check the user, its password and the database's name in outgrow.toml"
    if _may_come_back(error):
        hint = "check that the server runs and accepts connections at this address"
    return errors.Unavailable(
        f"no connection to {place}: {str(error) or type(error).__name__}", node=node, hint=hint
    )


def _translate(error: Exception, label: str, node: str, timeout_s: float) -> errors.DatabaseError:
    state = getattr(error, "sqlstate", None) or ""
    text = f"{label}: {error}"
    if state.startswith("23"):
        return _integrity(error, state, text, node)
    if state in ("40001", "40P01", "55P03"):
        return errors.Conflict(text, node=node)
    if state == "57014" or isinstance(error, TimeoutError):
        return errors.StatementTimeout(f"{label} ran for more than {timeout_s:g} s", node=node)
    if state == "25006" and "BEGIN" not in label and "COMMIT" not in label:
        return errors.ReadOnlyViolation(
            f"{label}: this is a read block", node=node, hint="write inside `async with og.db.write():`"
        )
    if state == "42P01" and "outgrow_" in str(error):
        return errors.SchemaMissing(
            "Outgrow's own tables are missing",
            node=node,
            hint="run `outgrow migrate` (`outgrow up` does it by itself)",
        )
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return errors.Conflict(f"{label}: the schema has changed meanwhile", node=node)
    if state in _NOT_SERVING or state.startswith("08") or _lost(error):
        return errors.Unavailable(f"{label}: the connection was lost ({error})", node=node)
    return errors.DatabaseError(text, node=node)


def _lost(error: Exception) -> bool:
    if isinstance(error, asyncpg.InterfaceError):  # also raised for a wrong argument
        return "closed" in str(error)
    if isinstance(error, asyncpg.InternalClientError):  # the protocol was torn off in mid-message
        return True
    return isinstance(error, _CONNECTION_LOST)


def _integrity(error: Exception, state: str, text: str, node: str) -> errors.IntegrityError:
    kinds: dict[str, type[errors.IntegrityError]] = {
        "23505": errors.UniqueViolation,
        "23503": errors.ForeignKeyViolation,
        "23502": errors.NotNullViolation,
        "23514": errors.CheckViolation,
    }
    found = _KEY.search(getattr(error, "detail", None) or "")
    column = getattr(error, "column_name", None)
    columns = (
        tuple(name.strip() for name in found["columns"].split(",")) if found else (column,) if column else ()
    )
    kind = kinds.get(state, errors.IntegrityError)
    return kind(text, node=node, constraint=getattr(error, "constraint_name", None) or "", columns=columns)

"""One asyncpg connection with its prepared statements.

COMMIT and the position after it take one round trip: the position comes back as a ParameterStatus
message, which PostgreSQL sends for application_name whenever it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from hashlib import blake2b
from time import monotonic
from typing import Any, Protocol

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg

from outgrow import errors
from outgrow.runtime.bookmark import Position
from outgrow.runtime.database.postgres_rows import Row, processed
from outgrow.runtime.database.session import BlockEngine
from outgrow.runtime.database.statement import Compiled

PREPARED_MAX = 256
"""Prepared statements a connection keeps; the oldest goes first. The server holds a plan for each."""

POSITION_PREFIX = "outgrow "

TIMELINE = (
    "('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
)
"""The server's own number of its timeline; of a primary alone."""

TIMELINE_WITHIN_S = 0.5

WRITTEN = (
    "CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' "
    "THEN pg_catalog.pg_current_wal_insert_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END"
)
"""A position that nothing is beyond which can be seen: a commit is seen once it is on the disk, unless
commits do not wait for it. What cannot be seen yet is left out, since it may never come about."""

RUN = (
    "pg_catalog.concat_ws(' ', extract(epoch FROM pg_catalog.pg_postmaster_start_time()), "
    "(SELECT extract(epoch FROM stats_reset) FROM pg_catalog.pg_stat_bgwriter))"
)
"""The server's start, and its statistics': a replica can also start anew by itself, when one of its processes
has crashed, and its recovery begins again further back. Its statistics are lost then."""

_COMMIT = (
    f"COMMIT; SELECT pg_catalog.set_config('application_name', '{POSITION_PREFIX}' || ({WRITTEN}), false)"
)


def run_of(told: str) -> int:
    """A server's run (routing.py), as RUN tells it, in 32 bits. 0 is none, and 1 is bookmark.SEVERAL."""
    return int.from_bytes(blake2b(told.encode(), digest_size=4).digest(), "little") | 2


class Server(Protocol):
    """Whose connection it is."""

    name: str
    dialect: PGDialect_asyncpg
    begins: Mapping[str, str]
    position: Position
    statement_name: Callable[[], str] | None
    pooled: bool
    compiled: MutableMapping[Any, Any]

    def timeline(self, wal_file: str) -> int: ...
    def committed_alone(self) -> None: ...
    def translate(self, error: Exception, label: str) -> errors.DatabaseError: ...


class Connection:
    """One asyncpg connection, used by one block at a time."""

    __slots__ = ("_engine", "_node", "_prepared", "opened_at", "raw", "run", "timeline", "unreplicated")

    def __init__(self, node: Server, raw: asyncpg.Connection[Row], timeline: int, run: int) -> None:
        self._node = node
        self._engine: BlockEngine | None = None
        self.raw = raw
        self.timeline = timeline
        self.run = run
        self.opened_at = monotonic()
        self.unreplicated = False
        raw.add_log_listener(self._hear)
        self._prepared: dict[int, tuple[Compiled, asyncpg.prepared_stmt.PreparedStatement[Row]]] = {}

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return bool(self.raw.is_closed())

    async def aclose(self) -> None:
        """Say goodbye to the server, or hang up."""
        try:
            await self.raw.close(timeout=1.0)
        except Exception:
            self.raw.terminate()

    def terminate(self) -> None:
        """Hang up, whatever is under way."""
        self.raw.terminate()

    def _hear(self, raw: object, message: Any) -> None:
        """The server ended the wait for a synchronous replica: the commit is there, and only there."""
        if "canceling" in message.message and "synchronous replication" in message.message:
            self.unreplicated = True

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
        if self.unreplicated:
            self.unreplicated = False
            self._node.committed_alone()
        self._node.position = max(self._node.position, position)
        return position

    async def _commit(self) -> Position:
        await self.raw.execute(_COMMIT)
        told = self.raw.get_settings().application_name
        if not told.startswith(POSITION_PREFIX):  # a proxy between us keeps ParameterStatus to itself
            told = POSITION_PREFIX + await self.raw.fetchval(f"SELECT ({WRITTEN})::text")
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

    @property
    def promoted(self) -> bool:
        """Whether the server was found to be a primary, at the end of the last statement at the latest.

        It tells so by itself, like a changed setting. A pooler keeps that to itself.
        """
        return not self.raw.is_closed() and self.raw.get_settings().in_hot_standby == "off"

    async def run_now(self) -> int:
        """The run of the server that this transaction is on: behind a pooler it may be another each time."""
        try:
            return run_of(await self.raw.fetchval(f"SELECT {RUN}"))
        except Exception as error:
            raise self._translate(error, "look") from error

    async def timeline_now(self) -> int:
        """The server's own number of its timeline. Raises DatabaseError where it is no primary, too."""
        try:
            return int(await self.raw.fetchval(f"SELECT {TIMELINE}", timeout=TIMELINE_WITHIN_S))
        except TimeoutError as error:
            self.raw.terminate()
            raise self._translate(error, "look") from error
        except Exception as error:
            raise self._translate(error, "look") from error

    def engine(self) -> BlockEngine:
        """SQLAlchemy's, on this connection's transaction."""
        if self._engine is None:
            self._engine = BlockEngine(self._node.dialect, self._adapted, self._node.compiled)
        return self._engine

    def _adapted(self) -> AsyncAdapt_asyncpg_connection:
        adapted = AsyncAdapt_asyncpg_connection(
            self._node.dialect.dbapi,
            self.raw,
            prepared_statement_cache_size=0 if self._node.pooled else PREPARED_MAX,
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


def lsn(text: str) -> int:
    """'16/B374D848' as a number. Source: PostgreSQL manual, pg_lsn type."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def changed(status: str) -> int:
    """How many rows, as the server says it: "UPDATE 3"."""
    tail = status.rpartition(" ")[2]
    return int(tail) if tail.isdigit() else 0

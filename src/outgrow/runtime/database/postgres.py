"""PostgreSQL over asyncpg: a pool of held connections with prepared statements.

The pool is our own, because asyncpg's costs as much as a single-row query: it resets the
connection by a round trip on each release. Nothing here leaves session state behind, so there is
nothing to reset. Connections are read-only by default, which the server enforces; a write block
begins with BEGIN READ WRITE.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, cast

import asyncpg
import msgspec
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from outgrow import endpoints, errors
from outgrow.runtime.bookmark import ZERO, Position
from outgrow.runtime.database import postgres_errors
from outgrow.runtime.database.pool import Pool
from outgrow.runtime.database.postgres_connection import RUN, WRITTEN, Connection, lsn, run_of
from outgrow.runtime.database.postgres_look import Look
from outgrow.runtime.database.postgres_rows import Row
from outgrow.runtime.database.routing import Told
from outgrow.runtime.database.session import compiled_cache
from outgrow.runtime.database.statement import Compiler
from outgrow.runtime.database.unit import Read
from outgrow.runtime.events import Events

CONNECT_TIMEOUT_S = 3.0
CONNECT_OTHER_TIMEOUT_S = 1.0
"""Where another server may take its place."""

IDLE_IN_BLOCK_MS = 60_000
RECONNECT_DELAY_MAX_S = 0.5

BEGINS = {"write": "BEGIN READ WRITE", "snapshot": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
_IDENTIFY = (
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN NULL ELSE "
    "pg_walfile_name(pg_current_wal_insert_lsn()) END, CASE WHEN pg_is_in_recovery() THEN NULL ELSE "
    f"({WRITTEN})::text END, {RUN}"
)


class Postgres(Pool[Connection]):
    """The node: a pool of connections to one server."""

    engine = "postgres"
    read: type[Read] = Read
    connection = Connection
    statement_name: Callable[[], str] | None = None
    """Names the prepared statements of `tx.session`; None leaves it to the driver."""

    def __init__(
        self, node: endpoints.Node, settings: endpoints.Database, password: str | None, events: Events
    ) -> None:
        super().__init__(node.name, settings.pool, settings.checkout_timeout_s, events)
        self.dialect = PGDialect_asyncpg()
        self.dialect.dbapi = PGDialect_asyncpg.import_dbapi()
        self.compiler = Compiler(self.dialect, partial(events.query_finished.bound, node.name))
        self.compiled = compiled_cache()
        self.position = ZERO
        self.begins: Mapping[str, str] = BEGINS
        self._timeline = settings.shards[0].timeline
        self._url = node.url
        self._password = password
        self._statement_timeout_s = settings.statement_timeout_s
        self._look = Look(node, password)
        self.pooled = node.pooled
        self.alone = len(settings.shards[0].nodes) == 1
        """Whether to wait for this very server when it does not answer: there is no other."""

    async def look(self, *, ends_of: int) -> Told:
        """What the server says of itself. Raises Unavailable."""
        return await self._look.look(ends_of)

    async def look_away(self) -> None:
        """Give up the connection for that."""
        self._look.close()

    def committed_alone(self) -> None:
        """A commit did not wait for its replica to the end."""
        self._events.commit_unreplicated(self.name)

    async def acquire_writer(self) -> Connection:
        """The same: a write block's BEGIN READ WRITE lifts the read-only default."""
        return await self.acquire()

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

    def translate(self, error: Exception, label: str) -> errors.DatabaseError:
        """The driver's error in Outgrow's words. A server that stops serving retires the pool."""
        if isinstance(error, errors.DatabaseError):
            return error
        translated = postgres_errors.translate(error, label, self.name, self._statement_timeout_s)
        if isinstance(translated, errors.Unavailable):
            self.retire()
        return translated

    async def connect(self, deadline: float) -> Connection:
        """A new connection, tried again with back-off while the server starts or restarts."""
        delay = 0.02
        while True:
            try:
                return await self._dial()
            except (asyncpg.PostgresError, *postgres_errors.CONNECTION_LOST, TimeoutError) as error:
                left = deadline - perf_counter() if self.alone else 0.0
                if left < delay or not postgres_errors.may_come_back(error):
                    raise postgres_errors.unreachable(error, self.name, self._url) from error
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, RECONNECT_DELAY_MAX_S)

    async def _dial(self) -> Connection:
        raw = cast(
            "asyncpg.Connection[Row]",
            await asyncpg.connect(
                self._url,
                password=self._password,
                timeout=CONNECT_TIMEOUT_S if self.alone else CONNECT_OTHER_TIMEOUT_S,
                command_timeout=self._statement_timeout_s + 5,
                record_class=Row,
                **self._options(),
            ),
        )
        try:
            return await self._get_ready(raw)
        except BaseException:
            raw.terminate()
            raise

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
        standby, wal_file, position, run = await raw.fetchrow(_IDENTIFY)
        timeline = 0 if standby else self.timeline(wal_file)
        if not standby:
            self.position = max(self.position, Position(timeline, lsn(position)))
        return self.connection(self, raw, timeline, run_of(run))

    def timeline(self, wal_file: str) -> int:
        """That of a position in this file of the write-ahead log."""
        return self._timeline + int(wal_file[:8], 16)


def _as_text(value: str) -> str:
    """SQLAlchemy's JSON type has serialised the value already."""
    return value

"""PostgreSQL behind PgBouncer, or another pooler that lends its connections for one transaction each.

    BEGIN; limits ─► statement ─► statement ─► COMMIT ─► position
    └────────── one server's connection ───────────┘      └─ any

Between two transactions nothing is the same but the database. So every block is a transaction, a
statement has no name, and limits are set within it. That costs more turns than a connection of one's
own: docs/scaling.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from outgrow import endpoints, errors
from outgrow.runtime.bookmark import Position
from outgrow.runtime.database import postgres, postgres_connection
from outgrow.runtime.database.postgres_connection import changed, lsn
from outgrow.runtime.database.postgres_rows import Row, processed
from outgrow.runtime.database.unit import Read
from outgrow.runtime.events import Events

if TYPE_CHECKING:
    from outgrow.runtime.database.statement import Compiled

_POSITION = "SELECT pg_walfile_name(lsn), lsn FROM (SELECT {written} AS lsn) AS written".replace(
    "{written}", postgres_connection.WRITTEN
)
_LIMITS = "; SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}"


class ReadInTransaction(Read, eq=False):
    """A read block whose statements all go to the same server."""

    _begins: str = "read"


class Connection(postgres_connection.Connection):
    """One connection to the pooler."""

    __slots__ = ()

    async def rows(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> list[Row]:
        """Every row."""
        try:
            sql, arguments = _said(compiled, parameters)
            rows = await self.raw.fetch(sql, *arguments)
        except errors.OutgrowError:
            raise
        except Exception as error:
            raise self._translate(error, compiled.label) from error
        return processed(compiled, cast("list[Row]", rows))

    async def count(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> int:
        """How many rows it changed; of a SELECT, how many it found."""
        try:
            sql, arguments = _said(compiled, parameters)
            prepared = await self.raw.prepare(sql, name="")
            await prepared.fetch(*arguments)
            return changed(prepared.get_statusmsg())
        except errors.OutgrowError:
            raise
        except Exception as error:
            raise self._translate(error, compiled.label) from error

    async def many(self, compiled: Compiled, parameters: Sequence[Mapping[str, Any]], /) -> None:
        """One execution for each set of parameters, pipelined."""
        try:
            await self.raw.executemany(compiled.sql, [compiled.arguments(each) for each in parameters])
        except errors.OutgrowError:
            raise
        except Exception as error:
            raise self._translate(error, compiled.label) from error

    async def _commit(self) -> Position:
        """COPY asks in one turn, which needs no transaction around it; a query of asyncpg takes two."""
        await self.raw.execute("COMMIT")
        told = bytearray()

        async def take(data: bytes) -> None:
            told.extend(data)

        await self.raw.copy_from_query(_POSITION, output=take)
        wal_file, position = told.decode().split()
        return Position(self._node.timeline(wal_file), lsn(position))


class PgBouncer(postgres.Postgres):
    """The node: a pool of connections to a pooler, which has fewer to the server."""

    read = ReadInTransaction
    connection = Connection

    def __init__(
        self, node: endpoints.Node, settings: endpoints.Database, password: str | None, events: Events
    ) -> None:
        super().__init__(node, settings, password, events)
        limits = _LIMITS.format(self.statement_timeout_ms, postgres.IDLE_IN_BLOCK_MS)
        begins = {**postgres.BEGINS, "read": "BEGIN READ ONLY"}
        self.begins = {mode: begin + limits for mode, begin in begins.items()}

    def statement_name(self) -> str:
        """None: a name would stay on a connection that belongs to the next."""
        return ""

    def translate(self, error: Exception, label: str) -> errors.DatabaseError:
        """As before; but to wait in vain says nothing of the other connections."""
        if "query_wait_timeout" in str(error):
            return errors.Unavailable(
                f"{label}: the pooler had no connection to the server in time",
                node=self.name,
                hint="keep blocks short, and check that the server runs",
            )
        return super().translate(error, label)

    def _options(self) -> dict[str, Any]:
        """What a session keeps is not to be relied on, and PgBouncer refuses to be told most of it."""
        return {"server_settings": {"application_name": "outgrow"}, "statement_cache_size": 0}

    async def _get_ready(self, raw: Any) -> postgres_connection.Connection:
        await raw.execute(self.begins["read"])
        connection = await super()._get_ready(raw)
        await raw.execute("COMMIT")
        return connection


def _said(compiled: Compiled, parameters: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
    if compiled.expanding:
        return compiled.expand(parameters)
    return compiled.sql, compiled.arguments(parameters)

"""SQLite's read block: what takes a few microseconds, on the event loop and with few calls.

A row by its key costs SQLite three microseconds and every call in Python a thirtieth of that. So this
is Read once more, written out for the usual case: a connection is idle, the statement is a SELECT, known
and quick, nothing fails. All else is left to Read.

Such a SELECT is over before anything else runs, and cannot write. So it takes the writer's connection
while nobody writes: each commit makes the other connections read their pages again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from outgrow.errors import UnitOfWorkClosed
from outgrow.runtime.database.sqlite_errors import busy
from outgrow.runtime.database.unit import Read, Row

if TYPE_CHECKING:
    from sqlalchemy import Executable

INLINE_LOOKS = 25
"""What INLINE_S is in looks. Work is counted and not time: another thread or process may hold the core."""


class ReadAtOnce(Read, eq=False):
    """A read block of SQLite, without a snapshot."""

    _tried: float = 0.0

    async def __aenter__(self) -> Self:
        idle = self._node.idle
        if not idle:
            return await Read.__aenter__(self)
        self._connection = idle.pop()
        return self

    def __aexit__(  # type: ignore[override]  # awaited like a coroutine by all who await it
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Awaitable[None]:
        connection = self._connection
        if error is not None or self._session is not None or connection.surplus:
            return Read.__aexit__(self, kind, error, trace)
        self._connection = None
        node = self._node
        node.idle.append(connection)
        done: Awaitable[None] = node.done
        return done  # to await a future that is done costs less than to make a coroutine

    async def one(self, statement: Executable, /, **parameters: Any) -> Row | None:
        """The first row, or None when there is none."""
        rows = self._at_once(statement, parameters)
        if rows is None:
            rows = await self._fetch(statement, parameters, None, self._tried)
        return rows[0] if rows else None

    async def all(self, statement: Executable, /, **parameters: Any) -> list[Row]:
        """Every row."""
        rows = self._at_once(statement, parameters)
        if rows is None:
            rows = await self._fetch(statement, parameters, None, self._tried)
        return rows

    async def value(self, statement: Executable, /, **parameters: Any) -> Any:
        """The first column of the first row, or None when there is no row."""
        rows = self._at_once(statement, parameters)
        if rows is None:
            rows = await self._fetch(statement, parameters, None, self._tried)
        return rows[0][0] if rows else None

    def _at_once(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row] | None:
        """Every row, or None when it has to be done the long way; `_tried` is since when, if it was begun."""
        if self._connection is None:
            raise UnitOfWorkClosed
        node = self._node
        compiled = node.compiler.known.get(id(statement))
        if compiled is None or not compiled.at_once:
            self._tried = 0.0
            return None
        connection = node.quick or self._connection
        connection.began = started = perf_counter()
        connection.looks = INLINE_LOOKS
        try:
            rows: list[Row] = connection.execute(compiled.sql, compiled.arguments(parameters)).fetchall()
            if compiled.results:
                rows = connection.processed(compiled, rows)
        except BaseException as error:
            self._not_at_once(connection, compiled, started, error)
            return None
        ended = perf_counter()
        for sink in compiled.finished.sinks:
            sink(ended, ended - started, None)
        return rows

    def _not_at_once(self, connection: Any, compiled: Any, started: float, error: BaseException) -> None:
        """The long way is to try again what was slow, and what a reader waits for where a writer does not."""
        try:
            if not (connection.writer and busy(error)):
                connection.refused(compiled, error)
        except BaseException as failure:
            self._failed(compiled, started, failure)
            raise
        self._tried = started

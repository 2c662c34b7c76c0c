"""Units of work: a read block stays on one node; a write block (write.py) is one transaction on a primary.

    async with db.read() as tx:   choose node -> take connection -> statements -> give it back

Both databases behave alike where they differ by nature: an error dooms the block (PostgreSQL does
so, SQLite does not) unless a savepoint caught it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from outgrow.errors import UnitOfWorkClosed
from outgrow.runtime.bookmark import Position
from outgrow.runtime.database.session import BlockEngine, session_on

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncSession

    from outgrow.runtime.database.statement import Compiled, Compiler

Row = Any
"""row.name, row["name"] and row[0]; len(), iteration and keys(). Made by the driver, in C."""


class Connection(Protocol):
    """One driver connection. Its methods raise DatabaseError alone, never a driver's error."""

    async def rows(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> list[Row]: ...
    async def count(self, compiled: Compiled, parameters: Mapping[str, Any], /) -> int: ...
    async def many(self, compiled: Compiled, parameters: Sequence[Mapping[str, Any]], /) -> None: ...
    async def begin(self, mode: str, /) -> None: ...
    async def commit(self, *, doomed: bool) -> Position: ...
    async def rollback(self) -> None: ...
    async def savepoint(self, verb: str, name: str, /) -> None: ...
    def engine(self) -> BlockEngine: ...


class Node(Protocol):
    """One database server, as a shard sees it: connections to take and give back."""

    name: str
    engine: str

    @property
    def read(self) -> type[Read]: ...

    compiler: Compiler
    position: Position

    def take(self) -> Connection | None: ...
    async def acquire(self) -> Connection: ...
    async def acquire_writer(self) -> Connection: ...
    def release(self, connection: Any, /, *, broken: bool) -> None: ...


class Unit(msgspec.Struct, eq=False):
    """What a read block and a write block have in common: statements.

    A struct, since there is one for every block: a fifth of the time of a class of Python's own.
    """

    _node: Any
    _connection: Any = None
    _session: AsyncSession | None = None
    _doomed: bool = False

    def one(self, statement: Executable, /, **parameters: Any) -> Awaitable[Row | None]:
        """The first row, or None when there is none."""
        return self._fetch(statement, parameters, _first_row)

    def all(self, statement: Executable, /, **parameters: Any) -> Awaitable[list[Row]]:
        """Every row."""
        return self._fetch(statement, parameters, None)

    def value(self, statement: Executable, /, **parameters: Any) -> Awaitable[Any]:
        """The first column of the first row, or None when there is no row."""
        return self._fetch(statement, parameters, _first_value)

    async def execute(self, statement: Executable, /, **parameters: Any) -> int:
        """Run it; returns how many rows it changed."""
        connection, compiled = self._prepare(statement, parameters)
        started = perf_counter()
        try:
            count = await connection.count(compiled, parameters)
        except BaseException as error:
            self._failed(compiled, started, error)
            raise
        _tell(compiled, started, None)
        return count

    async def many(self, statement: Executable, parameters: Sequence[Mapping[str, Any]], /) -> None:
        """Run it once for each set of parameters, which all have the same names."""
        if not parameters:
            return
        connection, compiled = self._prepare(statement, parameters[0])
        started = perf_counter()
        try:
            await connection.many(compiled, parameters)
        except BaseException as error:
            self._failed(compiled, started, error)
            raise
        _tell(compiled, started, None)

    @property
    def session(self) -> AsyncSession:
        """A SQLAlchemy session on this very block. A write block flushes it before COMMIT.

        It costs what SQLAlchemy costs: three to seven times the CPU of the methods above.
        """
        if self._session is None:
            self._session = session_on(self.engine())
        return self._session

    def engine(self) -> BlockEngine:
        """SQLAlchemy's engine with one connection: the block's, whose transaction the block ends."""
        if self._connection is None:
            raise UnitOfWorkClosed
        connection: Connection = self._connection
        return connection.engine()

    async def _fetch(
        self,
        statement: Executable,
        parameters: Mapping[str, Any],
        pick: Callable[[list[Row]], Any] | None,
        started: float = 0.0,
    ) -> Any:
        # Hot: at_once.py has it once more, for SQLite.
        connection = self._connection
        if connection is None:
            raise UnitOfWorkClosed
        compiled = self._node.compiler.compile(statement, parameters)
        started = started or perf_counter()
        try:
            rows = await connection.rows(compiled, parameters)
        except BaseException as error:
            self._failed(compiled, started, error)
            raise
        ended = perf_counter()
        for sink in compiled.finished.sinks:
            sink(ended, ended - started, None)
        return rows if pick is None else pick(rows)

    def _prepare(self, statement: Executable, parameters: Mapping[str, Any]) -> tuple[Connection, Compiled]:
        if self._connection is None:
            raise UnitOfWorkClosed
        return self._connection, self._node.compiler.compile(statement, parameters)

    def _failed(self, compiled: Compiled, started: float, error: BaseException) -> None:
        self._doomed = True
        _tell(compiled, started, type(error).__name__)

    async def _close_session(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


def _tell(compiled: Compiled, started: float, error: str | None) -> None:
    ended = perf_counter()
    compiled.finished(ended, ended - started, error)


def _first_row(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None


def _first_value(rows: list[Row]) -> Any:
    return rows[0][0] if rows else None


class Read(Unit, eq=False):
    """A read block: one node, no write. With a snapshot, every statement sees the same moment."""

    _begins: str = ""
    """The transaction that it is: "snapshot", "read", or none: every statement is one of its own."""

    async def __aenter__(self) -> Self:
        connection = self._node.take() or await self._node.acquire()
        if self._begins:
            try:
                await connection.begin(self._begins)
            except BaseException:
                self._node.release(connection, broken=True)
                raise
        self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        # A cancelled statement may still be under way on this connection: it is not used again.
        broken = error is not None and not isinstance(error, Exception)
        if self._session is None and not self._begins:
            self._node.release(connection, broken=broken)
            return
        try:
            await self._close_session()
            if self._begins and not broken:
                await connection.rollback()
        except BaseException:
            broken = True
            raise
        finally:
            self._node.release(connection, broken=broken)

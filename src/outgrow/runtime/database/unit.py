"""Units of work: a read block stays on one node, a write block is one transaction on a primary.

    async with db.read() as tx:   choose node -> take connection -> statements -> give it back
    async with db.write() as tx:  take connection -> BEGIN -> statements -> messages -> COMMIT
                                                                  position -> effects, bookmark

Both databases behave alike where they differ by nature: an error dooms the block (PostgreSQL does
so, SQLite does not) unless a savepoint caught it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Token
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from outgrow.errors import Conflict, DatabaseError, UnitOfWorkClosed
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Position, Writer
from outgrow.runtime.database.gate import Gate
from outgrow.runtime.database.session import BlockEngine, session_on
from outgrow.runtime.database.staging import Staging, put_once
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Announcer, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncSession

    from outgrow.runtime.database.statement import Compiled, Compiler

Row = Any
"""row.name, row["name"] and row[0]; len(), iteration and keys(). Made by the driver, in C."""

Effect = Callable[[Position], None]


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


class Place(Protocol):
    """Where the transactions of a shard take place (see `begin`)."""

    confirm_after_s: float

    async def begin(self) -> tuple[Node, Connection]: ...
    async def confirm(self, node: str, position: Position) -> None: ...
    def committed(self, position: Position) -> None: ...


class Shard:
    """One shard as this process sees it. Its place may be another one after the gate was held."""

    __slots__ = ("gate", "name", "place", "writer")

    def __init__(self, name: str, place: Place, gate: Gate, writer: Writer) -> None:
        self.name = name
        self.place = place
        self.gate = gate
        self.writer = writer


async def begin(node: Node) -> Connection:
    """A transaction that writes, on this node. Raises Unavailable: nothing was done then."""
    connection = await node.acquire_writer()
    try:
        await connection.begin("write")
    except BaseException as error:
        node.release(connection, broken=not isinstance(error, Exception))
        raise
    return connection


class Write(Unit, eq=False, kw_only=True):
    """A write block: one transaction. Leaving it commits, an exception rolls back."""

    _shard: Shard
    _events: Events
    _staging: Staging
    _messages: list[Message] = []
    _effects: list[tuple[Effect, bool]] = []
    _tags: list[str] = []
    _announcer: Announcer | None = None
    _announced: tuple[str, ...] = ()
    _savepoints: int = 0
    _token: Token[request.UnitOfWork | None] | None = None
    _started: float = 0.0

    def stage(self, message: Message) -> None:
        """Store the message with this transaction (see scope.UnitOfWork)."""
        if self._connection is None:
            raise UnitOfWorkClosed
        self._messages.append(message)

    def after_commit(self, effect: Effect, tags: tuple[str, ...] = (), *, certain: bool = False) -> None:
        """Call `effect` with the position once COMMIT has returned (see scope.UnitOfWork)."""
        if self._connection is None:
            raise UnitOfWorkClosed
        self._effects.append((effect, certain))
        self._tags.extend(tags)

    def announced_by(self, announcer: Announcer) -> None:
        """Have the tags announced before COMMIT (see scope.UnitOfWork)."""
        self._announcer = announcer

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part of the transaction that can fail alone: an error inside undoes only this part.

        async with tx.savepoint(): ...   # catch UniqueViolation around it and go on
        """
        connection = self._connection
        if connection is None:
            raise UnitOfWorkClosed
        self._savepoints += 1
        name = f"outgrow_{self._savepoints}"
        messages, effects, tags = len(self._messages), len(self._effects), len(self._tags)
        await connection.savepoint("SAVEPOINT", name)
        try:
            yield
            if self._session is not None:
                await self._session.flush()
        except Exception:
            await connection.savepoint("ROLLBACK TO SAVEPOINT", name)
            await connection.savepoint("RELEASE SAVEPOINT", name)
            del self._messages[messages:], self._effects[effects:], self._tags[tags:]
            self._doomed = False
            raise
        await connection.savepoint("RELEASE SAVEPOINT", name)

    async def __aenter__(self) -> Self:
        self._started = perf_counter()
        await self._shard.gate.enter()
        try:
            self._node, self._connection = await self._shard.place.begin()
        except BaseException:
            self._shard.gate.leave()
            raise
        self._token = request.unit_of_work.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None and self._token is not None
        with suppress(ValueError):  # another task ends the block (a session of drop_in.py): its own is empty
            request.unit_of_work.reset(self._token)
        if error is not None:
            # A cancelled statement may still be under way on this connection: it is not used again.
            await self._roll_back(broken=not isinstance(error, Exception))
            return
        try:
            await self._complete()
        except BaseException as failure:
            await self._roll_back(broken=not isinstance(failure, Exception))
            raise
        await self._commit()

    async def _complete(self) -> None:
        """Everything that still belongs into the transaction."""
        if self._session is not None:
            await self._session.flush()
            await self._close_session()
        if self._announcer is not None and self._tags and not self._doomed:
            self._announced = tuple(dict.fromkeys(self._tags))
            message = await self._announcer.announce(self._announced)
            if message is not None:
                self._announced = ()
                self._messages.append(message)
        if self._messages and not self._doomed:  # a doomed block takes no statement, and is rolled back
            await self.many(put_once(self._node.engine), self._staging.rows(self._messages))

    async def _commit(self) -> None:
        # COMMIT is carried to its end even if the caller is cancelled meanwhile: its outcome decides
        # whether the effects (invalidations) take place, and they must never be lost after a commit.
        task = asyncio.ensure_future(self._finish())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                task.add_done_callback(_retrieve)
            raise

    async def _finish(self) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        outcome = "unknown"
        try:
            position = await connection.commit(doomed=self._doomed)
            if perf_counter() - self._started > self._shard.place.confirm_after_s:
                await self._shard.place.confirm(self._node.name, position)
            outcome = "commit"
        except DatabaseError as error:
            outcome = "rollback" if isinstance(error, Conflict) or not error.retryable else "unknown"
            raise
        finally:
            self._release(connection, broken=outcome == "unknown")
            self._events.transaction_finished(self._node.name, outcome, perf_counter() - self._started)
            if outcome == "rollback":
                self._settle(None)
            if outcome == "unknown":
                # It may have been committed: to forget a cache entry in vain is harmless, to keep it is not.
                for effect, certain in self._effects:
                    if not certain:
                        effect(self._node.position)
        self._take_effect(position)

    def _take_effect(self, position: Position) -> None:
        scope = request.current.get()
        if scope is not None:
            scope.wrote = True
            scope.bookmark.wrote(self._shard.name, position, self._tags, self._shard.writer.id)
        else:
            self._shard.place.committed(position)
        self._settle(position)
        for effect, _ in self._effects:
            effect(position)
        for message in self._messages:
            self._events.message_staged(message.topic)

    def _settle(self, position: Position | None) -> None:
        if self._announcer is not None and self._announced:
            announced, self._announced = self._announced, ()
            self._announcer.settle(announced, position)

    async def _roll_back(self, *, broken: bool) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        self._settle(None)
        try:
            if not broken:
                await self._close_session()
                await connection.rollback()
        except BaseException:
            broken = True
            raise
        finally:
            self._session = None
            self._release(connection, broken=broken)
            self._events.transaction_finished(self._node.name, "rollback", perf_counter() - self._started)

    def _release(self, connection: Connection, *, broken: bool) -> None:
        self._node.release(connection, broken=broken)
        self._shard.gate.leave()


def _retrieve(task: asyncio.Future[None]) -> None:
    """Its error has nobody left to go to; the events have told it."""
    if not task.cancelled():
        task.exception()

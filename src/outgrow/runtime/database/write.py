"""Write blocks: one transaction on a primary, and what follows from its commit.

take connection -> BEGIN -> statements -> messages -> announce -> COMMIT -> position -> effects, bookmark
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Token
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import msgspec

from outgrow.errors import Conflict, DatabaseError, UnitOfWorkClosed
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Position, Writer
from outgrow.runtime.database import marks
from outgrow.runtime.database.gate import Gate
from outgrow.runtime.database.staging import Staging, put_once
from outgrow.runtime.database.unit import Connection, Node, Unit
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Announcer, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Effect = Callable[[Position], None]


class Place(Protocol):
    """Where the transactions of a shard take place (see `begin`)."""

    confirm_after_s: float

    async def begin(self) -> tuple[Node, Connection]: ...
    async def confirm(self, node: str, position: Position) -> None: ...
    def committed(self, position: Position) -> None: ...


class Shard:
    """One shard as this process sees it. Its place may be another one after the gate was held."""

    __slots__ = ("gate", "marks", "name", "place", "writer")

    def __init__(self, name: str, place: Place, gate: Gate, writer: Writer) -> None:
        self.name = name
        self.place = place
        self.gate = gate
        self.writer = writer
        self.marks = False  # whether somebody reads in the log what transactions say there (marks.py)


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
    _messages: list[Message] = msgspec.field(default_factory=list)
    _effects: list[tuple[Effect, bool]] = msgspec.field(default_factory=list)
    _tags: list[str] = msgspec.field(default_factory=list)
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
            told, message = await self._announcer.announce(self._announced)
            self._announced = tuple(told)
            if message is not None:
                self._messages.append(message)
            elif self._shard.marks:
                await self.execute(marks.STATEMENT, tags=marks.written(self._announced))
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

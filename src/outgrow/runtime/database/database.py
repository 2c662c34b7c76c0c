"""og.db: read and write blocks, routed to the right node of the right shard.

    key ─► shard ─► node fresh enough for the caller's bookmark ─► block

This version has one shard, with one node (OneNode) or a primary and its replicas (Replication); `key=` is
ready for the stage that adds shards.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from outgrow import endpoints
from outgrow.errors import Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Bookmark, Position, Writer
from outgrow.runtime.database import write
from outgrow.runtime.database.gate import Gate
from outgrow.runtime.database.routing import Level, Seen, level_of, merge
from outgrow.runtime.database.staging import Staging
from outgrow.runtime.database.transact import transact
from outgrow.runtime.database.unit import Connection, Node, Read, Row
from outgrow.runtime.database.write import Shard, Write
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

T = TypeVar("T")

RETIRE_WITHIN_S = 60.0
RETIRE_LOOK_S = 0.5
"""How long, and how often it is looked, until the blocks on a primary that was left have ended."""


class Server(Node, Protocol):
    """A node with its life cycle: what sqlite.py and postgres.py provide."""

    position: Position

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def check(self) -> str: ...
    def figures(self) -> dict[str, int]: ...
    def resize(self, connections: int) -> None: ...


class Database:
    """The database tier. Opened and closed by Outgrow."""

    def __init__(
        self,
        settings: endpoints.Database,
        *,
        passwords: Mapping[str, str],
        events: Events,
        ids: Ids,
        headers: Callable[[], str],
        writer: Writer | None = None,
        consistency: str = "session",
    ) -> None:
        if len(settings.shards) != 1:
            raise Misuse("this version works with one shard", hint="more of them come with stage 11")
        self._events = events
        self._staging = Staging(ids, headers)
        self._level = level_of(consistency)
        self._place = place_of(settings, passwords, events)
        gate = Gate(settings.checkout_timeout_s)
        self._shard = Shard(settings.shards[0].name, self._place, gate, writer or Writer())
        self.era = settings.shards[0].timeline
        """Rises each time the database moves: what was written in an earlier one is older."""
        self._retired: set[asyncio.Task[None]] = set()

    @property
    def engine(self) -> str:
        """ "sqlite" or "postgres", as of now."""
        return self._place.engine

    @property
    def gate(self) -> Gate:
        """Holds the write blocks of this process while the database moves."""
        return self._shard.gate

    def mark(self, yes: bool) -> None:
        """Whether transactions say in the database's log which tags they have announced (marks.py)."""
        self._shard.marks = yes

    @property
    def position(self) -> Position:
        """The newest position known to this process. A read on the primary that starts now sees it."""
        return self._place.position

    async def open(self) -> None:
        """Connect. Raises Unavailable when no server can be reached within the checkout timeout."""
        await self._place.open()

    async def close(self) -> None:
        """Give up all connections."""
        await self._place.close()
        await asyncio.gather(*self._retired, return_exceptions=True)

    def resize(self, connections: int) -> None:
        """How many connections to each node this process may have; those in use end their block first."""
        self._place.resize(connections)

    async def move(self, settings: endpoints.Database, passwords: Mapping[str, str]) -> None:
        """From now on every new block goes to the nodes of another document; those under way end where
        they began.

        To be called while the gate is held, unless it is the same primary by another way or with other
        replicas. Raises Unavailable when the new primary does not answer; nothing has changed then.
        """
        place = place_of(settings, passwords, self._events)
        try:
            await place.open()
        except BaseException:
            await place.close()
            raise
        before, self._place = self._place, place
        self._shard.place = place
        self.era = settings.shards[0].timeline
        task = asyncio.create_task(_close_when_idle(before))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def read(self, key: object = None, *, level: str | None = None, snapshot: bool = False) -> Read:
        """A block that reads from one node, fresh enough for this caller, and cannot write.

        `key` is the shard key; `level` how fresh: "strong", "session", "eventual", "bounded(2s)" or
        "pinned(5s)", by default the application's; with `snapshot` all its statements see one moment.

        Raises Unavailable when no node can serve in time, and LostWrite (errors.py) when it begins.
        """
        return self._place.read(self._level if level is None else level_of(level), snapshot)

    def write(self, key: object = None) -> Write:
        """A block that is one transaction on the primary: leaving it commits, an exception rolls back."""
        return Write(None, _shard=self._shard, _events=self._events, _staging=self._staging)

    async def transact(
        self,
        function: Callable[[Write], Awaitable[T]],
        *,
        key: object = None,
        attempts: int = 5,
        idempotency_key: str | None = None,
    ) -> T:
        """`await function(tx)` in a write block, and its result; again where repeating is safe.

        That is when the transaction was rolled back for certain: a conflict with another one, or a server
        lost before COMMIT. Whether a COMMIT that was not answered took place nobody knows: it is repeated
        only with an `idempotency_key`, which is stored with the transaction and its result (as JSON).
        Whoever comes with the same key within a day gets that result, and nothing is done twice.

        `function` may run several times: what it does outside of `tx` must bear that. Raises what it
        raises, and at the last attempt Conflict, Unavailable or OutcomeUnknown.
        """
        return await transact(
            lambda: self.write(key), function, attempts=attempts, idempotency_key=idempotency_key
        )

    def sessionmaker(self, *, level: str | None = None, **options: Any) -> async_sessionmaker[AsyncSession]:
        """For code that is written for SQLAlchemy's AsyncSession: what it makes is one, and is routed.

        Its selects go to a node that `level` allows until it writes, then everything goes to the primary
        until commit() or rollback(). `text()` counts as a write. `options` are AsyncSession's (not `bind`).
        """
        from sqlalchemy.ext.asyncio import async_sessionmaker

        from outgrow.runtime.database.drop_in import RoutedSession

        return async_sessionmaker(class_=RoutedSession, blocks=self, level=level, **options)

    async def scatter(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | None = None,
        *,
        order_by: tuple[str, str] | None = None,
        limit: int | None = None,
        level: str | None = None,
    ) -> Sequence[Row]:
        """Run a query on every shard and merge the answers; on one shard it is the plain query.

        `order_by` is a column of the result and "asc" or "desc", by which each shard's answer must
        be ordered already; `limit` applies to the merged rows.
        """
        async with self.read(level=level) as tx:
            answer = await tx.all(statement, **(parameters or {}))
        return merge([answer], order_by, limit)

    def saw(self, position: Position) -> None:
        """Whoever asks has been shown this much elsewhere, and is shown nothing older by any replica."""
        scope = request.current.get()
        if scope is not None and position > ZERO and not isinstance(self._place, OneNode):
            scope.bookmark.raise_to(self._shard.name, position)

    def joined(self, position: Position, tags: Iterable[str]) -> None:
        """The caller has written these tags, in a transaction that others have committed for it there."""
        scope = request.current.get()
        if scope is not None:
            scope.wrote = True
            scope.bookmark.wrote(self._shard.name, position, tags, self._shard.writer.id)

    def handed_over(self, node: str, timeline: int, lsn: int) -> None:
        """This primary was stopped as planned: all that it has shown is at this position of the next one."""
        self._place.handed_over(node, timeline, lsn)

    def stands(self, bookmark: Bookmark) -> bool:
        """Whether what this session knows is of the present timeline.

        If not, a failover may have lost some of it: only a read block can tell (LostWrite).
        """
        return self._place.stands(bookmark)

    async def written(self) -> Position:
        """A position beyond all that can be seen on the primary now; with one server, that which is known.

        Raises Unavailable when the primary does not answer.
        """
        return await self._place.written()

    async def check(self) -> str:
        """For the deep health check: what answered. Raises DatabaseError when nothing does."""
        return await self._place.check()

    def figures(self) -> dict[str, dict[str, int]]:
        """Connections of each node by state."""
        return self._place.figures()

    def nodes(self) -> dict[str, Seen]:
        """What each node has told of itself, where there are several: role, position, lag. Else nothing."""
        return self._place.nodes()


class Place(write.Place, Protocol):
    """The nodes of one shard with their life cycle."""

    engine: str

    @property
    def position(self) -> Position: ...
    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def stands(self, bookmark: Bookmark) -> bool: ...
    def handed_over(self, node: str, timeline: int, lsn: int) -> None: ...
    async def written(self) -> Position: ...
    async def check(self) -> str: ...
    def read(self, level: Level, snapshot: bool) -> Read: ...
    def resize(self, connections: int) -> None: ...
    def figures(self) -> dict[str, dict[str, int]]: ...
    def nodes(self) -> dict[str, Seen]: ...


class OneNode:
    """A shard with one server, which is the primary and serves every read, whatever its level."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.confirm_after_s = math.inf
        self.engine = server.engine
        self.open, self.close, self.check, self.resize = (
            server.open, server.close, server.check, server.resize,
        )  # fmt: skip

    @property
    def position(self) -> Position:
        """The newest known."""
        return self._server.position

    def stands(self, bookmark: Bookmark) -> bool:
        """Nothing can be lost."""
        return True

    async def written(self) -> Position:
        """Every read sees all of it, however late this is."""
        return self._server.position

    async def begin(self) -> tuple[Node, Connection]:
        """A transaction there."""
        return self._server, await write.begin(self._server)

    async def confirm(self, node: str, position: Position) -> None:
        """No other server can have been promoted."""

    def committed(self, position: Position) -> None:
        """Every read sees it anyway."""

    def handed_over(self, node: str, timeline: int, lsn: int) -> None:
        """There is no next one."""

    def read(self, level: Level, snapshot: bool) -> Read:
        """A read block there."""
        server = self._server
        return Read(server, _begins="snapshot") if snapshot else server.read(server)

    def figures(self) -> dict[str, dict[str, int]]:
        """Its connections by state."""
        return {self._server.name: self._server.figures()}

    def nodes(self) -> dict[str, Seen]:
        """Nobody looks at it: there is nothing to choose."""
        return {}


def place_of(settings: endpoints.Database, passwords: Mapping[str, str], events: Events) -> Place:
    """The nodes of the one shard."""
    shard = settings.shards[0]
    if len(shard.nodes) == 1:
        return OneNode(connect(shard.nodes[0], settings, passwords, events))
    if settings.engine == "sqlite":
        raise Misuse("SQLite has no replicas", hint='replicas need PostgreSQL: stage = "replication"')
    from outgrow.runtime.database.replication import Replication

    servers = {node.name: connect(node, settings, passwords, events) for node in shard.nodes}
    return Replication(settings, servers, events)


def connect(
    node: endpoints.Node, settings: endpoints.Database, passwords: Mapping[str, str], events: Events
) -> Any:
    """The driver for a node. Imported here, so that an application loads only what it uses."""
    password = passwords.get(node.name, passwords.get("*"))
    if settings.engine == "sqlite":
        from outgrow.runtime.database.sqlite import SQLite

        return SQLite(node, settings, password, events)
    try:
        from outgrow.runtime.database.pgbouncer import PgBouncer
        from outgrow.runtime.database.postgres import Postgres
    except ModuleNotFoundError as error:
        raise Misuse("PostgreSQL needs a driver", hint="pip install 'outgrow[postgres]'") from error
    return (PgBouncer if node.pooled else Postgres)(node, settings, password, events)


async def _close_when_idle(place: Place) -> None:
    deadline = asyncio.get_running_loop().time() + RETIRE_WITHIN_S
    await asyncio.sleep(RETIRE_LOOK_S)  # whoever has just chosen it is about to use it
    while (
        any(each["used"] for each in place.figures().values())
        and asyncio.get_running_loop().time() < deadline
    ):
        await asyncio.sleep(RETIRE_LOOK_S)
    await place.close()

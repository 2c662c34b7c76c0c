"""og.db: read and write blocks, routed to the right node of the right shard.

    key ─► shard ─► node fresh enough for the caller's bookmark ─► block

This version has one shard with one primary, so every choice is the primary; `key=` and `level=`
are checked and ready for the stages that add replicas and shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, get_args

from outgrow import endpoints
from outgrow.errors import Misuse
from outgrow.runtime.bookmark import Position, Writer
from outgrow.runtime.database.gate import Gate
from outgrow.runtime.database.routing import Level, merge
from outgrow.runtime.database.staging import Staging
from outgrow.runtime.database.unit import Node, Read, Row, Shard, Write
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids

if TYPE_CHECKING:
    from sqlalchemy import Executable

RETIRE_WITHIN_S = 60.0
RETIRE_LOOK_S = 0.5
"""How long, and how often it is looked, until the blocks on a primary that was left have ended."""

LEVELS: frozenset[str] = frozenset(get_args(Level))


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
    ) -> None:
        if len(settings.shards) != 1 or len(settings.shards[0].nodes) != 1:
            raise Misuse(
                "this version works with one database server",
                hint="replicas and shards come with stages 5 and 11",
            )
        self._events = events
        self._staging = Staging(ids, headers)
        self._primary = connect(settings, passwords, events)
        gate = Gate(settings.checkout_timeout_s)
        self._shard = Shard(settings.shards[0].name, self._primary, gate, writer or Writer())
        self._retired: set[asyncio.Task[None]] = set()

    @property
    def engine(self) -> str:
        """ "sqlite" or "postgres", as of now."""
        return self._primary.engine

    @property
    def gate(self) -> Gate:
        """Holds the write blocks of this process while the database moves."""
        return self._shard.gate

    @property
    def position(self) -> Position:
        """The newest position known to this process. A read on the primary that starts now sees it."""
        return self._primary.position

    async def open(self) -> None:
        """Connect. Raises Unavailable when the server cannot be reached within the checkout timeout."""
        await self._primary.open()

    async def close(self) -> None:
        """Give up all connections."""
        await self._primary.close()
        await asyncio.gather(*self._retired, return_exceptions=True)

    def resize(self, connections: int) -> None:
        """How many connections this process may have from now on; those in use end their block first."""
        self._primary.resize(connections)

    async def move(self, settings: endpoints.Database, passwords: Mapping[str, str]) -> None:
        """From now on every new block goes to another primary; those under way end where they began.

        To be called while the gate is held, unless it is the same database by another way. Raises
        Unavailable when the new primary does not answer, and nothing has changed then.
        """
        primary = connect(settings, passwords, self._events)
        try:
            await primary.open()
        except BaseException:
            await primary.close()
            raise
        before, self._primary = self._primary, primary
        self._shard.primary = primary
        task = asyncio.create_task(_close_when_idle(before))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def read(self, key: object = None, *, level: Level | None = None, snapshot: bool = False) -> Read:
        """A block that reads from one node, fresh enough for this caller, and cannot write.

        `key` is the shard key; `level` how fresh ("strong", "session" or "eventual"; the default is
        the application's); with `snapshot` all its statements see one moment.
        """
        if level is not None and level not in LEVELS:
            raise Misuse(
                f"level={level!r} is no consistency level", hint=f"one of: {', '.join(sorted(LEVELS))}"
            )
        primary = self._primary
        return Read(primary, _begins="snapshot") if snapshot else primary.read(primary)

    def write(self, key: object = None) -> Write:
        """A block that is one transaction on the primary: leaving it commits, an exception rolls back."""
        return Write(self._primary, _shard=self._shard, _events=self._events, _staging=self._staging)

    async def scatter(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | None = None,
        *,
        order_by: tuple[str, str] | None = None,
        limit: int | None = None,
        level: Level | None = None,
    ) -> Sequence[Row]:
        """Run a query on every shard and merge the answers; on one shard it is the plain query.

        `order_by` is a column of the result and "asc" or "desc", by which each shard's answer must
        be ordered already; `limit` applies to the merged rows.
        """
        answers = await asyncio.gather(
            *(self._all(node, statement, parameters or {}, level) for node in (self._primary,))
        )
        return merge(answers, order_by, limit)

    async def check(self) -> str:
        """For the deep health check: what answered. Raises DatabaseError when nothing does."""
        return await self._primary.check()

    def figures(self) -> dict[str, dict[str, int]]:
        """Connections of each node by state."""
        return {self._primary.name: self._primary.figures()}

    async def _all(
        self, node: Server, statement: Executable, parameters: Mapping[str, Any], level: Level | None
    ) -> list[Row]:
        async with self.read(level=level) as tx:
            return await tx.all(statement, **parameters)


def connect(settings: endpoints.Database, passwords: Mapping[str, str], events: Events) -> Server:
    """The driver for the primary. Imported here, so that an application loads only what it uses."""
    shard = settings.shards[0]
    node = shard.nodes[0]
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


async def _close_when_idle(server: Server) -> None:
    deadline = asyncio.get_running_loop().time() + RETIRE_WITHIN_S
    await asyncio.sleep(RETIRE_LOOK_S)  # whoever has just chosen it is about to use it
    while server.figures()["used"] and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(RETIRE_LOOK_S)
    await server.close()

"""A read block of a shard with replicas: it finds its node when it begins."""

from __future__ import annotations

import contextlib
from time import monotonic, perf_counter
from types import TracebackType
from typing import Protocol, Self

from outgrow.errors import DatabaseError, Unavailable
from outgrow.runtime import scope as request
from outgrow.runtime.database.budget import Budget
from outgrow.runtime.database.replicas import View
from outgrow.runtime.database.routing import Choice, Level, Seen
from outgrow.runtime.database.unit import Connection, Node, Read
from outgrow.runtime.database.watch import Watched
from outgrow.runtime.events import Events


class Held(Connection, Protocol):
    """A connection that knows during which run of its server it was opened, and when (time.monotonic())."""

    run: int
    opened_at: float
    timeline: int

    @property
    def promoted(self) -> bool: ...
    async def run_now(self) -> int: ...
    async def timeline_now(self) -> int: ...


class Server(Node, Watched, Protocol):
    """A node of a shard with several."""

    pooled: bool
    used: int

    def take(self) -> Held | None: ...
    async def acquire(self) -> Held: ...
    async def close(self) -> None: ...
    def figures(self) -> dict[str, int]: ...
    def resize(self, connections: int) -> None: ...
    def reopen(self) -> None: ...


class Router(Protocol):
    """Who chooses (replication.Replication)."""

    shard: str
    servers: dict[str, Server]
    view: View
    budget: Budget
    wait_s: float
    events: Events

    def choose(self, level: Level, deadline: float) -> Choice | None: ...
    async def look_again(self, lsn: int) -> bool: ...
    def saw(self, level: Level, seen: Seen) -> int: ...
    def promoted(self, name: str, timeline: int) -> None: ...
    def blame(self, server: Server, error: Unavailable) -> None: ...
    async def news(self, deadline: float) -> None: ...


class RoutedRead(Read, eq=False, kw_only=True):
    """One node, fresh enough for its caller, and no write."""

    _replication: Router
    _level: Level
    _snapshot: bool = False
    _run: int = 0
    _replica: bool = False
    _diverted: bool = False

    async def __aenter__(self) -> Self:
        replication = self._replication
        deadline = monotonic() + replication.wait_s
        started = 0.0
        looked = False
        while True:
            choice = replication.choose(self._level, deadline)
            if choice is not None and choice.lacks and not looked:
                looked = True
                if await replication.look_again(choice.lacks):
                    continue
            if choice is not None and choice.node is not None:
                if await self._begin_at(choice):
                    break
                if monotonic() < deadline:
                    continue  # it is known to be out now: another may serve
            started = started or perf_counter()
            await replication.news(deadline)
        if started:
            replication.events.read_waited(replication.shard, perf_counter() - started)
        for sink in replication.events.read_routed.sinks:
            sink(choice.node.name, choice.reason)
        return self

    async def _begin_at(self, choice: Choice) -> bool:
        """Whether the block has begun there. If not, the view knows better now, or soon."""
        replication, seen = self._replication, choice.node
        assert seen is not None
        server = replication.servers[seen.name]
        if choice.reason not in ("fresh", "strong", "pinned"):
            await replication.budget.enter()
            self._diverted = True
        self._run = replication.saw(self._level, seen)
        try:
            connection = await self._connection_of(server, seen.run)
            if connection is not None:
                self._replica = seen.role == "replica"
                self._node, self._connection = server, connection
                return True
        except Unavailable as error:
            self._leave()
            replication.blame(server, error)
        except BaseException:
            self._leave()
            raise
        else:
            self._leave()
            replication.view.suspect(seen.name)
        return False

    async def _connection_of(self, server: Server, run: int) -> Held | None:
        """A connection on which nothing older can be seen than was known of this run.

        None when the server has begun another run since it was looked at.
        """
        self._begins = "snapshot" if self._snapshot else "read" if server.pooled else ""
        while True:
            connection = server.take() or await server.acquire()
            broken = True
            try:
                if self._begins:
                    await connection.begin(self._begins)
                found = await connection.run_now() if server.pooled else connection.run
                broken = False
            finally:
                if broken:
                    server.release(connection, broken=True)
            if found == run:
                return connection
            known = self._replication.view.seen.get(server.name)
            newer = server.pooled or known is None or connection.opened_at > known.at
            server.release(connection, broken=True)
            if newer:
                return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._replica and self._connection.promoted:
                await self._tell_promoted()
        finally:
            if self._run:
                scope = request.current.get()
                if scope is not None:
                    scope.bookmark.still_sees(self._replication.shard, self._run)
            self._leave()
            await Read.__aexit__(self, kind, error, trace)

    async def _tell_promoted(self) -> None:
        """What others know of the node may be older or newer than this block: only the node itself knows."""
        timeline = 0
        try:
            with contextlib.suppress(DatabaseError):
                timeline = await self._connection.timeline_now()
        finally:
            self._replication.promoted(self._node.name, timeline)

    def _leave(self) -> None:
        if self._diverted:
            self._diverted = False
            self._replication.budget.leave()

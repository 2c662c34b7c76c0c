"""A shard with replicas: where a read block goes, and which server is the primary of a write block.

bookmark ─► Demand ─┐
                    ├─► routing.choose ─► connection of the run that was chosen ─► block
View ─► Standing ───┘            └─ nobody just now: wait for news, for as long as a block may wait
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from time import monotonic

from outgrow import endpoints
from outgrow.errors import LostWrite, OutcomeUnknown, Unavailable
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Bookmark, Position, one_run
from outgrow.runtime.database.budget import Budget
from outgrow.runtime.database.replicas import View
from outgrow.runtime.database.routed import Held, RoutedRead, Server
from outgrow.runtime.database.routing import AHEAD, LOST, Choice, Demand, Level, Seen, choose
from outgrow.runtime.database.unit import Connection, Node, Read
from outgrow.runtime.database.write import begin
from outgrow.runtime.events import Events

SETTLE_WITHIN_S = 0.25
CONFIRM_WITHIN_S = 0.2
NEARLY_WITHIN_S = 0.02
"""So long a read waits for replicas that may be fresh enough by now, before the primary serves it."""

AHEAD_WITHIN_S = 2.0
"""A bookmark tells of a later timeline than any node: that one is found by then, if it is there."""

ENDS_WITHIN_S = 1.0
"""A server that is being promoted tells of its new timeline, and within so long what led to it, if it may."""

_random = random.Random()


class Replication:
    """The nodes of one shard, as a place for its blocks (write.Place)."""

    engine = "postgres"
    confirm_after_s = 0.3

    def __init__(self, settings: endpoints.Database, servers: Mapping[str, Server], events: Events) -> None:
        shard = settings.shards[0]
        self.shard = shard.name
        self.view = View(shard.name, shard.timeline, settings.max_lag_s, events)
        self.servers = dict(servers)
        self.budget = Budget(shard.name, diverted_max(settings.pool), events)
        self.wait_s = settings.checkout_timeout_s
        self.events = events
        self._confirmed = settings.replication in ("sync", "semi-sync")
        self._own = Bookmark()

    async def open(self) -> None:
        """Look at every node. Raises Unavailable when none answers within database.checkout_timeout.

        Without a primary it opens too: replicas serve, and writes wait for one.
        """
        for server in self.servers.values():
            server.reopen()
            self.view.watch(server)
        deadline = monotonic() + self.wait_s
        while not any(seen.role == "primary" for seen in self.view.seen.values()):
            left = deadline - monotonic()
            if left > 0 and await self.view.news(left):
                continue
            if all(seen.role == "unknown" for seen in self.view.seen.values()):
                await self.news(monotonic())
            return

    async def close(self) -> None:
        """Look at nothing any more, and give up all connections."""
        await self.view.close()
        await asyncio.gather(*(server.close() for server in self.servers.values()))

    async def check(self) -> str:
        """For the deep health check: it is enough that reads can be served. Raises Unavailable."""
        standing = self.view.standing
        if standing.primary is None and not standing.replicas:
            raise Unavailable(f"no server of shard {self.shard} answers", hint="a failover may be under way")
        primary = standing.primary.name if standing.primary is not None else "no primary"
        return f"PostgreSQL: {primary}, and {len(standing.replicas)} of {len(self.servers) - 1} replicas"

    def resize(self, connections: int) -> None:
        """So many connections to each node."""
        for server in self.servers.values():
            server.resize(connections)
        self.budget.resize(diverted_max(connections))

    def figures(self) -> dict[str, dict[str, int]]:
        """Connections of each node by state."""
        return {name: server.figures() for name, server in self.servers.items()}

    def nodes(self) -> dict[str, Seen]:
        """What each node has told of itself."""
        return dict(self.view.seen)

    def read(self, level: Level, snapshot: bool) -> Read:
        """A read block that has yet to find its node."""
        return RoutedRead(None, _replication=self, _level=level, _snapshot=snapshot)

    @property
    def position(self) -> Position:
        """The newest position that this process knows of."""
        primary = self.view.standing.primary
        known = max((server.position for server in self.servers.values()), default=ZERO)
        return known if primary is None else max(known, Position(primary.timeline, primary.lsn))

    def stands(self, bookmark: Bookmark) -> bool:
        """See Database.stands."""
        held = bookmark.positions.get(self.shard)
        present = held is None or held.timeline == self.view.standing.lineage.timeline
        return present and self.shard not in bookmark.earlier

    async def written(self) -> Position:
        """Beyond all that can be seen on the primary now. Raises Unavailable."""
        return await self.view.written(SETTLE_WITHIN_S)

    def committed(self, position: Position) -> None:
        """A commit outside of any request: what this process reads later, outside of one, is not older."""
        self._own.raise_to(self.shard, position)

    def handed_over(self, node: str, timeline: int, lsn: int) -> None:
        """See View.handed_over."""
        self.view.handed_over(node, timeline, lsn)

    async def begin(self) -> tuple[Node, Connection]:
        """A transaction on the primary, as soon as there is one.

        Raises Unavailable when there is none within database.checkout_timeout, and LostWrite.
        """
        deadline = monotonic() + self.wait_s
        while True:
            primary = self.view.standing.primary
            if self._demand(self._bookmark(), deadline) is not None and primary is not None:
                server = self.servers[primary.name]
                try:
                    connection = await self._begin_on(server, primary)
                except Unavailable as error:
                    self.blame(server, error)
                else:
                    if connection is not None:
                        return server, connection
            await self.news(deadline)

    async def confirm(self, node: str, position: Position) -> None:
        """A transaction took so long that its primary may have been paused meanwhile, and another promoted.

        Raises OutcomeUnknown then: what an old primary says that wakes up is worth nothing.
        """
        await self.view.look_at_others(node, CONFIRM_WITHIN_S)
        if self.view.standing.lineage.timeline > position.timeline:
            raise OutcomeUnknown(
                "COMMIT: another server was promoted meanwhile, which may not have it",
                node=node,
                hint="look, or use og.db.transact(..., idempotency_key=...)",
            )

    async def _begin_on(self, server: Server, primary: Seen) -> Connection | None:
        """None when the server has begun another run: it may have been a replica in between."""
        connection: Held = await begin(server)  # type: ignore[assignment]
        found = 0
        try:
            found = await connection.run_now() if server.pooled else connection.run
        finally:
            if found != primary.run:
                server.release(connection, broken=True)
        if found != primary.run:
            self.view.suspect(server.name)
            return None
        connection.timeline = primary.timeline  # it may have been opened on a replica
        return connection

    def choose(self, level: Level, deadline: float) -> Choice | None:
        """Where a read block is to go; None when nobody can say so yet. Raises LostWrite."""
        standing = self.view.standing
        demand = self._demand(self._bookmark(), deadline)
        if demand is None:
            return None
        if level.kind == "pinned":
            demand = demand._replace(pinned=time.time() - self._bookmark().wrote_at < level.seconds)
        loading = request.loading.get()
        if loading is not None and loading.floor is not ZERO:
            # What was invalidated and is lost cannot be had: then all that is here.
            floor = standing.lineage.standing(loading.floor)
            demand = demand._replace(lsn=max(demand.lsn, floor if floor >= 0 else standing.lineage.fork))
        choice = choose(standing, level, demand, self._used, monotonic(), _random)
        if choice.reason == "behind" and level.kind == "session":
            self.view.hurry()  # the next read may find a replica that has come far enough
            return choice._replace(lacks=demand.lsn)
        return choice

    async def look_again(self, lsn: int) -> bool:
        """Ask the replicas that may have come as far as this meanwhile; whether there are any."""
        names = self.view.nearly(lsn)
        if names:
            await self.view.look_at(names, NEARLY_WITHIN_S)
        return bool(names)

    async def news(self, deadline: float) -> None:
        """Wait until anything is known that was not. Raises Unavailable at the deadline."""
        self.view.hurry()
        left = deadline - monotonic()
        if left <= 0 or not await self.view.news(left):
            why = "; ".join(f"{seen.name}: {seen.reason or seen.role}" for seen in self.view.seen.values())
            raise Unavailable(
                f"shard {self.shard} had no server for this block for {self.wait_s:g} s ({why})",
                hint="a failover may be under way: try again",
            )

    def blame(self, server: Server, error: Unavailable) -> None:
        """A connection could not be had, or broke at once. To find all in use says nothing of the server."""
        if error.__cause__ is None:
            raise error
        self.view.suspect(server.name)

    def saw(self, level: Level, seen: Seen) -> int:
        """A block of this level reads from there: its session may go on only where it sees no less.

        Returns the run to be confirmed at its end, or 0 where nothing is promised.
        """
        loading = request.loading.get()
        if loading is not None:
            is_primary = seen.role == "primary"
            loading.read_at(self.position if is_primary else self.view.standing.lineage.position_of(seen.lsn))
        scope = request.current.get()
        if scope is None or level.kind not in ("session", "strong"):
            return 0
        bookmark = scope.bookmark
        if bookmark.seen.get(self.shard) != seen.run:
            # Also says of which timeline the run is.
            bookmark.raise_to(self.shard, Position(self.view.standing.lineage.timeline, seen.lsn))
            bookmark.saw(self.shard, seen.run)
        if seen.role == "primary":
            scope.unsettled = self.settle
        return seen.run

    def promoted(self, name: str, timeline: int) -> None:
        """A block found that a replica is one no more: its session knows of a timeline that may not be known
        here yet, nor to others. A node of an earlier one is not for it, whatever it claims to be.

        `timeline` is the server's own number of it, or 0 where it did not answer any more.
        """
        scope, lineage = request.current.get(), self.view.standing.lineage
        unknown = name in self.view.seen and self.view.seen[name].role != "primary"
        if unknown:
            self.view.suspect(name)
        if scope is not None:
            held = scope.bookmark.positions.get(self.shard, ZERO)
            now = lineage.base + timeline if timeline else lineage.timeline + unknown
            scope.bookmark.raise_to(self.shard, Position(now, held.offset))

    async def settle(self, bookmark: Bookmark) -> None:
        """Turn what was read on the primary into a position, so that replicas can serve what follows."""
        primary = self.view.standing.primary
        if primary is None or bookmark.seen.get(self.shard) != primary.run:
            return
        if bookmark.read_at < primary.at:  # it was asked after that read
            bookmark.covers(self.shard, Position(primary.timeline, primary.lsn))
            return
        try:
            bookmark.covers(self.shard, await self.view.written(SETTLE_WITHIN_S))
        except Unavailable:
            return  # it stays with the primary, then

    def _bookmark(self) -> Bookmark:
        scope = request.current.get()
        return self._own if scope is None else scope.bookmark

    def _demand(self, bookmark: Bookmark, deadline: float) -> Demand | None:
        """What this session asks for, or None when it cannot be told yet. Raises LostWrite."""
        lineage, primary = self.view.standing.lineage, self.view.standing.primary
        seen = bookmark.seen.get(self.shard, 0)
        if primary is not None and seen == primary.run and bookmark.read_at < primary.at:
            bookmark.covers(self.shard, Position(primary.timeline, primary.lsn))
            seen = 0
        demand = self._stands(bookmark, bookmark.positions.get(self.shard), seen, deadline)
        if demand is not None and seen and not demand.seen:
            bookmark.covers(self.shard, Position(lineage.timeline, demand.lsn))
        if demand is not None and self.shard in bookmark.earlier:
            demand = self._with_earlier(bookmark, demand, deadline)
        return demand

    def _with_earlier(self, bookmark: Bookmark, demand: Demand, deadline: float) -> Demand | None:
        """Also what the session holds of earlier timelines. Raises LostWrite."""
        for timeline, (offset, run) in bookmark.earlier[self.shard].items():
            other = self._stands(bookmark, Position(timeline, offset), run, deadline)
            if other is None:
                return None
            seen = one_run(demand.seen, other.seen)
            demand = Demand(max(demand.lsn, other.lsn), seen, demand.session)
        position = Position(self.view.standing.lineage.timeline, demand.lsn)
        bookmark.proven(self.shard, position, demand.seen)
        return demand

    def _stands(
        self, bookmark: Bookmark, position: Position | None, seen: int, deadline: float
    ) -> Demand | None:
        """What it takes to show this much, and what this run had shown. Raises LostWrite."""
        lineage = self.view.standing.lineage
        lsn = lineage.standing(position)
        if lsn >= 0 and not (seen and position is not None and position.timeline < lineage.timeline):
            return Demand(lsn, seen, bookmark.session)
        if lsn >= 0 and self._is_here(seen):
            return Demand(lsn, seen, bookmark.session)
        if lsn >= 0 and self._confirmed and self.view.was_primary(seen):
            # Nobody saw a commit there before replicas had confirmed it, of which one is the primary now.
            begins = self._begins()
            return Demand(max(lsn, begins), 0, bookmark.session) if begins else None
        if lsn == AHEAD:
            if not self._all_looked_at(deadline - self.wait_s):
                return None
        elif lsn == LOST and position is not None and not lineage.knows_end_of(position.timeline):
            if monotonic() < deadline - self.wait_s + ENDS_WITHIN_S:
                return None
        elif lsn >= 0:
            bound = self.view.bound(seen)
            begins = LOST if bound is None else lineage.standing(bound)
            if begins >= 0:
                return Demand(max(lsn, begins), 0, bookmark.session)
            if (begins == AHEAD or self._may_come_back(seen)) and monotonic() < deadline:
                return None
        raise self._lost(bookmark)

    def _begins(self) -> int:
        """An LSN at or after the beginning of the present timeline; 0 while none is known."""
        standing = self.view.standing
        return standing.lineage.fork or (standing.primary.lsn if standing.primary is not None else 0)

    def _all_looked_at(self, since: float) -> bool:
        """Then a timeline of which none has told is not here: the data are another backup's."""
        patient = monotonic() - since > AHEAD_WITHIN_S
        return patient and all(seen.role != "unknown" and seen.at > since for seen in self.view.seen.values())

    def _is_here(self, run: int) -> bool:
        standing = self.view.standing
        primary = standing.primary
        return (primary is not None and primary.run == run) or any(
            replica.run == run for replica in standing.replicas
        )

    def _may_come_back(self, run: int) -> bool:
        """It does not answer just now, or has yet to come to the present timeline."""
        present = self.view.standing.lineage.timeline
        return any(
            seen.run == run
            and (seen.role == "unknown" or (seen.role == "replica" and seen.timeline != present))
            for seen in self.view.seen.values()
        )

    def _lost(self, bookmark: Bookmark) -> LostWrite:
        lineage = self.view.standing.lineage
        demanded = bookmark.positions.get(self.shard, ZERO)
        bookmark.restart(self.shard, Position(lineage.timeline, lineage.fork))
        scope = request.current.get()
        if scope is not None:
            scope.restarted = True
        self.events.write_lost(self.shard)
        return LostWrite(self.shard, str(demanded))

    def _used(self, name: str) -> int:
        return self.servers[name].used


def diverted_max(pool: int) -> int:
    """Of the primary's connections, how many reads may have that belong on a replica: half."""
    return max(1, pool // 2)

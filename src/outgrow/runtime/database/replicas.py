"""A live view of the nodes of one shard, from what each says of itself.

    watch ─► node ─► Told ─┐                          ┌─► choose a node for a read
    watch ─► node ─► Told ─┼─► View.note ─► Standing ─┼─► who the primary is, for writes
    watch ─► node ─► Told ─┘                          └─► gauges: role, lag

Each node is asked over a connection of its own, a few times a second and much more often when something
has just failed. Nothing here trusts a document: whoever does not answer is "unknown", whoever claims to
be the primary is believed only on the highest timeline that anybody has told of, and a replica serves only
when all that it has replayed belongs to that timeline.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Mapping
from time import monotonic

import msgspec

from outgrow.errors import Unavailable
from outgrow.runtime.bookmark import Position
from outgrow.runtime.database.routing import Lineage, Role, Seen, Standing, Told
from outgrow.runtime.database.runs import Runs
from outgrow.runtime.database.watch import LOOK_S, LOOK_SOON_S, Watch, Watched
from outgrow.runtime.events import Events

ALARM_S = 5.0
"""Something has failed: for so long all nodes are asked more often."""

GONE_AFTER_S = 3.0
"""A node that has not answered for so long is given up: whoever still waits for it is told."""

PAST_MAX = 4096


class View:
    """What this process knows of one shard's nodes. `standing` is replaced as a whole at each news."""

    def __init__(self, shard: str, base: int, max_lag_s: float, events: Events) -> None:
        self.shard = shard
        self.standing = Standing(Lineage(base))
        self.seen: dict[str, Seen] = {}
        self.ends_of = 0
        self._max_lag_s = max_lag_s
        self._events = events
        self._watches: dict[str, Watch] = {}
        self._system = 0
        self._past: deque[tuple[float, int]] = deque(maxlen=PAST_MAX)
        self._runs = Runs()
        self._alarm_until = 0.0
        self._last_primary = ("", 0)
        self._without_primary_since = monotonic()
        self._news = asyncio.Event()

    # Watching

    def watch(self, node: Watched) -> None:
        """Look at this node from now on."""
        self.seen[node.name] = Seen(node.name, since=monotonic(), reason="it was not asked yet")
        self._watches[node.name] = Watch(node, self)

    async def forget(self, name: str) -> None:
        """Look at this node no more."""
        await self._watches.pop(name).close()
        self._runs.end(self.seen.pop(name).run, self.standing.lineage.timeline)
        self._publish()

    async def close(self) -> None:
        """Look at nothing any more."""
        watches, self._watches = self._watches, {}
        await asyncio.gather(*(watch.close() for watch in watches.values()))

    def alarm(self) -> None:
        """Something may be wrong: look at all of them, and more often for a while."""
        self._alarm_until = monotonic() + ALARM_S
        self.hurry()

    def alarmed(self) -> bool:
        """Whether something is wrong, so that all nodes are asked more often."""
        return self.standing.primary is None or monotonic() < self._alarm_until

    def suspect(self, name: str) -> None:
        """Somebody had trouble with this node: it is out until it has answered again."""
        seen = self.seen.get(name)
        if seen is not None:
            self._lose(seen, "a connection to it was lost")
        self.hurry()

    def hurry(self) -> None:
        """Somebody hopes for news: look soon."""
        for watch in self._watches.values():
            watch.hurry()

    async def news(self, within_s: float) -> bool:
        """Wait for news of any node; whether there was any in time."""
        try:
            async with asyncio.timeout(within_s):
                return await self._news.wait()
        except TimeoutError:
            return False

    async def written(self, within_s: float) -> Position:
        """A position beyond all that can be seen on the primary now. Raises Unavailable."""
        primary = self.standing.primary
        watch = self._watches.get(primary.name) if primary is not None else None
        if watch is None:
            raise Unavailable("no primary is known")
        seen = await watch.fresh(within_s)
        if seen.role != "primary":
            raise Unavailable("it is the primary no more", node=seen.name)
        return Position(seen.timeline, seen.lsn)

    async def look_at_others(self, name: str, within_s: float) -> None:
        """Ask every other node that answers at all, from now on."""
        others = [each for each, seen in self.seen.items() if each != name and seen.role != "unknown"]
        await self.look_at(others, within_s)

    async def look_at(self, names: Iterable[str], within_s: float) -> None:
        """Ask these nodes, from now on."""
        looks = (self._watches[each].fresh(within_s) for each in names if each in self._watches)
        await asyncio.gather(*looks, return_exceptions=True)

    def nearly(self, lsn: int) -> list[str]:
        """Replicas that may show this LSN by now, to judge by how late they were when they were last asked.

        That was not just now: nobody is asked more often than while something is wrong.
        """
        now, past = monotonic(), self._past
        first = bisect_left(past, lsn, key=lambda entry: entry[1])
        age_s = now - past[first][0] if first < len(past) else 0.0
        return [
            seen.name
            for seen in self.standing.replicas
            if now - seen.at >= LOOK_SOON_S and seen.lag_s <= age_s + LOOK_S
        ]

    def bound(self, run: int) -> Position | None:
        """A position beyond which this run has surely shown nothing; None when that is not known."""
        return self._runs.bounds.get(run)

    def handed_over(self, name: str, timeline: int, lsn: int) -> None:
        """This primary was stopped as planned: all that it has shown is at this position of the next one."""
        seen = self.seen.get(name)
        if seen is not None and self.was_primary(seen.run):
            self._runs.is_within(seen.run, Position(self.standing.lineage.base + timeline, lsn))
            self._publish()  # who has read there waits for it

    def was_primary(self, run: int) -> bool:
        """Whether this process has known this run as the primary."""
        return run in self._runs.primaries

    # News

    def note(self, name: str, told: Told, at: float) -> Seen:
        """A node has answered what it was asked at `at`."""
        before = self.seen[name]
        self._system = self._system or told.system
        if told.system != self._system:
            self._lose(before, "it holds another database cluster than the others")
            return self.seen[name]
        if before.run != told.run:
            self._runs.end(before.run, self.standing.lineage.timeline)
        role: Role = "replica" if told.standby else "primary"
        timeline = self.standing.lineage.base + told.timeline if told.timeline else 0
        if told.standby and before.run == told.run:
            # Nothing that it replays is of an earlier one, though it may tell of its last restart point's
            # when the primary from which it receives is gone.
            timeline = max(timeline, before.timeline)
        since = before.since if before.role == role else at
        self.seen[name] = Seen(name, role, timeline, told.lsn, told.run, at, since=since)
        self._follow(before, self.seen[name], told)
        self._publish(before)
        return self.seen[name]

    def fail(self, name: str, reason: str, *, lost: bool) -> None:
        """A node has not answered. What was known of a primary that is slow holds for a while."""
        seen = self.seen[name]
        gone = monotonic() - seen.at >= GONE_AFTER_S
        if lost or gone or seen.role != "primary":
            self._lose(seen, reason)
        if gone and not lost:
            self._watches[name].node.abandon()

    def _lose(self, seen: Seen, reason: str) -> None:
        self._alarm_until = monotonic() + ALARM_S
        since = seen.since if seen.role == "unknown" else monotonic()
        self.seen[seen.name] = msgspec.structs.replace(seen, role="unknown", since=since, reason=reason)
        if seen.role != "unknown":
            self._publish(seen)

    def _follow(self, before: Seen, seen: Seen, told: Told) -> None:
        """The highest timeline that anybody has told of is the present one."""
        lineage = self.standing.lineage
        if seen.role == "primary" and seen.timeline >= lineage.timeline:
            self.ends_of = told.timeline
        if seen.timeline < lineage.timeline or (seen.timeline == lineage.timeline and seen.role != "primary"):
            return
        ends = _ends(lineage, before, seen, told)
        if seen.timeline == lineage.timeline and ends == lineage.ends:
            return
        if self.standing.primary is not None:
            self._without_primary_since = monotonic()
        self.standing = Standing(Lineage(lineage.base, seen.timeline, ends))
        while self._past and self._past[-1][1] > self.standing.lineage.fork:  # of a timeline that was left
            self._past.pop()

    # What follows from it

    def _publish(self, before: Seen | None = None) -> None:
        lineage, was = self.standing.lineage, self.standing.primary
        primary = self._primary(lineage, was)
        if primary is not None and primary is not was:
            self._remember(primary)
        for seen in self.seen.values():
            if seen.role == "replica":
                self.seen[seen.name] = self._measured(seen)
        replicas = tuple(seen for seen in self.seen.values() if self._may_serve(seen, lineage))
        self.standing = Standing(lineage, primary, replicas)
        if before is not None and before.name in self.seen and self.seen[before.name].role != before.role:
            now = self.seen[before.name]
            self._events.node_changed(self.shard, now.name, now.role, now.reason)
        if primary is None:
            if was is not None:
                self._without_primary_since = monotonic()
        elif was is None or was.name != primary.name:
            self._found(primary)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _found(self, primary: Seen) -> None:
        last, self._last_primary = self._last_primary, (primary.name, primary.timeline)
        for name, seen in self.seen.items():
            if seen.role == "unknown" or (seen.role == "primary" and name != primary.name):
                self._watches[name].node.abandon()
        if last not in (("", 0), self._last_primary):
            seconds = monotonic() - self._without_primary_since
            self._events.failed_over(self.shard, primary.name, primary.timeline, seconds)

    def _primary(self, lineage: Lineage, was: Seen | None) -> Seen | None:
        """Of two on the highest timeline the one that it was: the other is a copy that nobody promoted."""
        claims = [
            seen
            for seen in self.seen.values()
            if seen.role == "primary" and seen.timeline == lineage.timeline
        ]
        held = [seen for seen in claims if was is not None and seen.name == was.name]
        return next(iter(held or claims), None)

    def _may_serve(self, seen: Seen, lineage: Lineage) -> bool:
        """Whether it is a replica, not too late, and all that it replays is of the present timeline.

        One that has not come to it yet may still follow an earlier primary, beyond where that was left.
        """
        if seen.role != "replica" or seen.lag_s > self._max_lag_s:
            return False
        return lineage.timeline in (lineage.base + 1, seen.timeline)

    def _remember(self, primary: Seen) -> None:
        self._runs.primary(primary.run)
        self._runs.bound(primary.at, Position(primary.timeline, primary.lsn))
        if self._past and self._past[-1][1] >= primary.lsn:
            self._past[-1] = (primary.at, self._past[-1][1])
        else:
            self._past.append((primary.at, primary.lsn))

    def _measured(self, seen: Seen) -> Seen:
        """With its lag. An idle primary writes nothing: who has replayed all of it lacks nothing."""
        past = self._past
        if not past:
            return seen
        behind = bisect_right(past, seen.lsn, key=lambda entry: entry[1])
        complete_at = past[behind - 1][0] if behind else 0.0
        lag_s = max(0.0, seen.at - past[behind][0]) if behind < len(past) else 0.0
        lag_bytes = max(0, past[-1][1] - seen.lsn)
        return msgspec.structs.replace(seen, lag_s=lag_s, lag_bytes=lag_bytes, complete_at=complete_at)


def _ends(lineage: Lineage, before: Seen, seen: Seen, told: Told) -> Mapping[int, int]:
    """Where the timelines before this one were left, as far as anybody knows it for certain."""
    if told.ends:
        return {lineage.base + old: end for old, end in told.ends.items()}
    if before.run == seen.run and 0 < before.timeline < seen.timeline and told.forked_at is not None:
        # This process has seen it as a replica: it was promoted, and its recovery has ended there.
        older = {old: end for old, end in lineage.ends.items() if old < before.timeline}
        return {**older, before.timeline: told.forked_at}
    return lineage.ends if seen.timeline == lineage.timeline else {}

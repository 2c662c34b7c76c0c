"""Decisions of the database tier, as pure functions: which node serves a read, and why.

    level ─► strong: the primary          session: whoever shows all that this session knows
             pinned: the primary, for a while after a write, else as eventual
             bounded: whoever was complete so lately          eventual: whoever is not too far behind

What a session knows is a position (it has written that, or seen no more than that) and the run of a node
that it has read from since. A *run* is the time in which one server never shows anything older than
before: until it is restarted, and promotion does not end it. So the same run needs no proof, however far
it has come; any other node must have replayed what the primary had after that read. Nothing has to be
asked for a read: only a session that changes nodes pays for one look at the primary.

That is why the bookmark does not hold the position that a read saw. To know it takes another question
(on a replica the answer is even too small: a commit can be seen a moment before
pg_last_wal_replay_lsn() counts it), and what this process knows of the node is older than the read.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec

from outgrow.errors import Misuse
from outgrow.runtime.bookmark import Position

Kind = Literal["strong", "session", "eventual", "bounded", "pinned"]
Role = Literal["primary", "replica", "unknown"]
Reason = Literal["fresh", "strong", "pinned", "behind", "moved", "no-replica", "primary-run"]
"""Why a read went where it went: to a replica that is "fresh" enough; to the primary because it had to
("strong", "pinned"), because no replica was as far as the session ("behind") or could prove it without
another look ("moved"), because there is none ("no-replica"), or because the session had just read there
("primary-run")."""

LOST = -1
AHEAD = -2

_LEVEL = re.compile(
    r"(?P<kind>strong|session|eventual|bounded|pinned)(?:\((?P<value>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)\))?"
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Level(NamedTuple):
    """How fresh a read must be; `seconds` is that of "bounded" and "pinned"."""

    kind: Kind
    seconds: float = 0.0


@lru_cache(256)
def level_of(text: str) -> Level:
    """ "session" or "bounded(2s)" as a Level. Raises Misuse."""
    found = _LEVEL.fullmatch(text)
    if found is None or (found["value"] is None) == (found["kind"] in ("bounded", "pinned")):
        raise Misuse(
            f"level={text!r} is no consistency level",
            hint='one of: "strong", "session", "eventual", "bounded(2s)", "pinned(5s)"',
        )
    return Level(found["kind"], float(found["value"] or 0) * _UNITS[found["unit"] or "s"])  # type: ignore[arg-type]


class Lineage(msgspec.Struct, frozen=True):
    """How the present timeline came about: `ends` says where each earlier one was left.

    `base` is added to the server's own number of each (endpoints.Shard.timeline): what is not beyond it is of
    a database from which the data was moved here.
    """

    base: int = 0
    timeline: int = 0
    ends: Mapping[int, int] = {}

    def standing(self, position: Position | None) -> int:
        """What a node of the present timeline must have replayed to show it: an LSN.

        LOST when the present timeline left the position's own before it, or when that cannot be excluded;
        AHEAD when it is of a timeline of which this process does not know yet.
        """
        if position is None or position.timeline <= self.base:
            return 0
        if position.timeline > self.timeline:
            return AHEAD
        if not position.offset:  # no more than that this timeline has begun
            return 0
        if position.timeline == self.timeline:
            return position.offset
        end = self.ends.get(position.timeline)
        return position.offset if end is not None and position.offset <= end else LOST

    def knows_end_of(self, timeline: int) -> bool:
        """Whether it is known where this earlier timeline was left: else what is LOST there may not be."""
        return timeline in self.ends

    def position_of(self, lsn: int) -> Position:
        """The position at this LSN of the present timeline or of those before it."""
        for timeline in sorted(self.ends):
            if lsn <= self.ends[timeline]:
                return Position(timeline, lsn)
        return Position(self.timeline, lsn)

    @property
    def fork(self) -> int:
        """Where the present timeline left the one before it, or 0 when that is not known: an LSN."""
        return max(self.ends.values(), default=0)


class Told(msgspec.Struct, frozen=True):
    """What one node says of itself. `timeline` is 0 where a replica may not tell it.

    `lsn` is what it has replayed, or on a primary what all that can be seen there is not beyond.
    `forked_at` is on a primary the end of what it replayed before it was one, or None. `ends` are where the
    timelines before its own ended, as far as it may tell.
    """

    standby: bool
    timeline: int
    lsn: int
    run: int
    system: int
    forked_at: int | None = None
    ends: Mapping[int, int] = {}


class Seen(msgspec.Struct, frozen=True):
    """What a node has told of itself at `at` (time.monotonic(), before it was asked).

    `lsn` is what it has replayed, or on a primary written. `lag_s` is how long it has not been complete, as
    far as is known, and `lag_bytes` what it lacks; `complete_at` is a moment at which it surely lacked
    nothing. `run` is never 0 or SEVERAL while the role is known.
    """

    name: str
    role: Role = "unknown"
    timeline: int = 0
    lsn: int = 0
    run: int = 0
    at: float = 0.0
    lag_s: float = 0.0
    lag_bytes: int = 0
    complete_at: float = 0.0
    since: float = 0.0
    reason: str = ""


class Standing(msgspec.Struct, frozen=True):
    """One shard as it stands: its primary, if one is known, and the replicas that may serve at all."""

    lineage: Lineage = Lineage()
    primary: Seen | None = None
    replicas: tuple[Seen, ...] = ()


class Demand(NamedTuple):
    """What a read asks for beside its level. `lsn` is on the present timeline, `seen` a run or 0.

    `session` is 0 where there is none; `pinned` is whether it wrote lately.
    """

    lsn: int = 0
    seen: int = 0
    session: int = 0
    pinned: bool = False


class Choice(NamedTuple):
    """The node, or None when there is none just now; and why.

    `lacks` is what no replica has shown yet, an LSN, where that is why; one may do so by now.
    """

    node: Seen | None
    reason: Reason
    lacks: int = 0


def choose(
    standing: Standing, level: Level, demand: Demand, used: Callable[[str], int], now: float, random: Random
) -> Choice:
    """Where to read. `used` tells how many connections of a node are in use."""
    kind, replicas, primary = level.kind, standing.replicas, standing.primary
    if kind == "strong":
        return Choice(primary, "strong")
    if kind == "pinned" and demand.pinned:
        return Choice(primary, "pinned")
    if not replicas:
        return Choice(primary, "no-replica")
    if kind == "session":
        lsn, seen = demand.lsn, demand.seen
        fresh = [node for node in replicas if node.lsn >= lsn and (not seen or node.run == seen)]
        if not fresh:
            return Choice(primary, _why(standing, demand))
        return Choice(_of_session(fresh, demand.session, used, random), "fresh")
    if kind == "bounded":
        fresh = [node for node in replicas if now - node.complete_at <= level.seconds]
        return Choice(_least_used(fresh, used, random), "fresh") if fresh else Choice(primary, "behind")
    return Choice(_least_used(replicas, used, random), "fresh")


def _why(standing: Standing, demand: Demand) -> Reason:
    if demand.seen and standing.primary is not None and standing.primary.run == demand.seen:
        return "primary-run"
    far_enough = any(node.lsn >= demand.lsn for node in standing.replicas)
    return "moved" if far_enough and demand.seen else "behind"


def _of_session(fresh: Sequence[Seen], session: int, used: Callable[[str], int], random: Random) -> Seen:
    """The one that this session used before, as long as the same ones are there: rendezvous hashing."""
    if len(fresh) == 1:
        return fresh[0]
    if not session:
        return _least_used(fresh, used, random)
    return max(fresh, key=lambda node: _mixed(session, _salt(node.name)))


def _least_used(nodes: Sequence[Seen], used: Callable[[str], int], random: Random) -> Seen:
    """The less busy one of two by chance: who takes the least busy of all meets everybody else there."""
    count = len(nodes)
    if count == 1:
        return nodes[0]
    first = int(random.random() * count)
    second = (first + 1 + int(random.random() * (count - 1))) % count
    one, other = nodes[first], nodes[second]
    return one if used(one.name) <= used(other.name) else other


@lru_cache(1024)
def _salt(name: str) -> int:
    return int.from_bytes(name.encode(), "little") % 0xFFFFFFFB


def _mixed(session: int, salt: int) -> int:
    """The finaliser of MurmurHash3 (public domain, Austin Appleby): each bit depends on all others."""
    value = (session ^ salt) & 0xFFFFFFFF
    value = (value ^ (value >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    value = (value ^ (value >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ (value >> 16)


def merge(answers: Sequence[Sequence[Any]], order_by: tuple[str, str] | None, limit: int | None) -> list[Any]:
    """The rows of all shards as one list. Each answer must be ordered by `order_by` already."""
    if order_by is None:
        rows = chain.from_iterable(answers)
    else:
        column, direction = order_by
        rows = heapq.merge(*answers, key=lambda row: row[column], reverse=direction == "desc")  # type: ignore[assignment]
    return list(islice(rows, limit))

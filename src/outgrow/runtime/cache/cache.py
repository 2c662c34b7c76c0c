"""og.cache: read through, with tags, and never older than the caller's own writes.

    get ─► entry, in time, none of its tags invalidated, not older than this session's writes? ─► value
             └ no ─► somebody loads it already, and began late enough? ─ yes ─► wait for that load
                        └ no ─► note position and tag versions ─► load ─► unchanged? store ─► value

The note is taken before the load, so the race 'a slow reader stores the old value after the
invalidation' cannot happen: an invalidation in between changes a version, and the value is handed
to its caller but not stored.

A write block passes the cache by: what its transaction reads is not committed, so it must not be
kept, and what others have kept is not what its transaction sees. Where there are several histories (other
processes, of whose writes this cache does not hear; replicas) sessions pass it by as well: what is kept
here may be older than what they have seen elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from itertools import chain
from time import monotonic, perf_counter
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from outgrow import endpoints
from outgrow.errors import Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Bookmark, Position, Writer
from outgrow.runtime.cache.memory import Entry, Note, Reading, Tag, entries
from outgrow.runtime.events import Events

V = TypeVar("V")

JITTER = 0.1
"""A lifetime varies by this share, so that what was stored together does not expire together."""

DEFAULT_TTL_S = 60.0
INVALIDATED_MAX = 10_000
"""Tags of which it is remembered when they were invalidated last, though no entry has them."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")


class Cache:
    """The cache of one process. Values are kept as they are, not copied: do not change what you get.

    Other processes do not hear of an invalidation: there, an entry lives until its `ttl` is over.
    `for_sessions` is whether callers with a session get what is kept, too.
    """

    def __init__(
        self,
        settings: endpoints.Cache,
        events: Events,
        *,
        position: Callable[[], Position],
        writer: Writer | None = None,
        for_sessions: bool = True,
    ) -> None:
        self.enabled = settings.engine != "off" and settings.entries_max > 0
        self._for_sessions = for_sessions
        self._entries = entries(settings.entries_max)
        self._events = events
        self._position = position
        self._writer = writer or Writer()
        # A tag is remembered while an entry or a load refers to it, or it is among those invalidated last: a
        # load that begins later may read from a replica that is late, and must be told how far it has to be.
        self._tags: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        self._invalidated: dict[str, Tag] = {}
        self._floor = ZERO
        """Of what was invalidated before those."""
        self._loads: dict[str, Load] = {}
        self._ttls: dict[str, float] = {}

    async def get(
        self,
        key: str,
        load: Callable[[], Awaitable[V]],
        *,
        ttl: str | float = DEFAULT_TTL_S,
        tags: Iterable[str] = (),
    ) -> V:
        """The value of `key`; what `load` returns when it is not there.

        `ttl` is seconds or text like "5m" (it varies by 10%); `tags` are what the value depends on,
        beside its own key and whatever `load` itself gets from the cache: a key's are the same
        wherever it is asked for. Callers that miss at the same time share one load, which goes on
        when they go away. An error of `load` is raised to those who waited for it, and nothing is
        stored. Inside a write block it is just `load()`.
        """
        if not self._for_sessions and _in_session():
            self._events.cache_read(_prefix(key), "session")
            return await load()
        entry: Entry | None = self._entries.get(key)
        # The hottest lines of the tier, so `intact` is written out: a call more is a tenth more.
        if entry is not None and entry.expires > monotonic():
            for tag, version in entry.note:
                if tag.version != version:
                    break
            else:
                scope = request.current.get()
                if (
                    scope is None or not scope.bookmark.demands(self._writer) or entry.covers(scope.bookmark)
                ) and request.unit_of_work.get() is None:
                    around = _around.get()
                    if around is not None:
                        around.take_part(entry)
                    for sink in self._events.cache_read.sinks:
                        sink(entry.prefix, "hit")
                    return entry.value  # type: ignore[no-any-return]
        if not self.enabled or request.unit_of_work.get() is not None:
            return await load()
        outcome = "miss" if entry is None or entry.expires <= monotonic() else "stale"
        return await self._join_or_load(key, load, self._seconds(ttl), tags, outcome)  # type: ignore[no-any-return]

    async def get_many(
        self,
        keys: Iterable[str],
        load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]],
        *,
        ttl: str | float = DEFAULT_TTL_S,
        tags: Callable[[str], Iterable[str]] = lambda key: (),
    ) -> dict[str, V]:
        """The values of many keys; `load_many` is called once with those that are missing.

        A key that `load_many` does not return is absent from the result, one that it was not asked
        for is left out. `tags` gives a key's tags. Loads of several callers are not shared.
        """
        wanted = list(dict.fromkeys(keys))
        if not self._for_sessions and _in_session():
            for key in wanted:
                self._events.cache_read(_prefix(key), "session")
            loaded = await load_many(wanted) if wanted else {}
            return {key: loaded[key] for key in wanted if key in loaded}
        if not self.enabled or request.unit_of_work.get() is not None:
            loaded = await load_many(wanted) if wanted else {}
            return {key: loaded[key] for key in wanted if key in loaded}
        found = self._held(wanted)
        if len(found) < len(wanted):
            missing = [key for key in wanted if key not in found]
            for key in missing:
                self._events.cache_read(_prefix(key), "miss")
            found.update(await self._load_many(missing, load_many, self._seconds(ttl), tags))
        return {key: found[key] for key in wanted if key in found}

    def invalidate(self, *names: str) -> None:
        """Forget every entry with one of these tags or keys.

        Inside a write block it takes effect when, and only when, the transaction commits.
        """
        unit = request.unit_of_work.get()
        if unit is None:
            self._forget(names, self._position())
        else:
            unit.after_commit(lambda position: self._forget(names, position), names)

    def serve_sessions(self, yes: bool) -> None:
        """Whether sessions are served from now on. If they were not, what is kept may be too old for them."""
        if yes and not self._for_sessions:
            self.clear()
        self._for_sessions = yes

    def clear(self) -> None:
        """Forget everything; loads under way are not stored."""
        self._forget([tag.name for tag in self._tags.values()], self._position())
        self._entries.clear()

    async def check(self) -> str:
        """For the deep health check."""
        return f"{len(self._entries)} entries" if self.enabled else "off"

    def figures(self) -> dict[str, int]:
        """How much it holds."""
        return {"entries": len(self._entries), "loads": len(self._loads)}

    async def _join_or_load(
        self, key: str, load: Callable[[], Awaitable[Any]], ttl_s: float, tags: Iterable[str], outcome: str
    ) -> Any:
        bookmark = self._demanding(request.current.get())
        while True:
            running = self._loads.get(key)
            if running is None or not running.serves(bookmark):
                self._events.cache_read(_prefix(key), outcome)
                return await _result(self._start(key, load, ttl_s, tags), _around.get())
            try:
                value = await _result(running, _around.get())
            except asyncio.CancelledError:
                if not running.task.cancelled() or _being_cancelled():
                    raise
                continue  # that load was cancelled from within, which is no business of this caller
            if bookmark is None or running.covers(bookmark):
                self._events.cache_read(_prefix(key), "waited")
                return value

    def _start(self, key: str, load: Callable[[], Awaitable[Any]], ttl_s: float, tags: Iterable[str]) -> Load:
        started = Load(key, *self._begin(key, tags))
        started.floor = self._required(started.note)
        # A task of its own: when the caller who happened to be first goes away, the others still get it.
        started.task = asyncio.get_running_loop().create_task(self._load(load, started, ttl_s))
        started.task.add_done_callback(_retrieve)
        self._loads[key] = started
        return started

    async def _load(self, load: Callable[[], Awaitable[Any]], this: Load, ttl_s: float) -> Any:
        started = perf_counter()
        token = _around.set(this)
        try:
            value = await load()
        finally:
            _around.reset(token)  # else task, context and load refer to each other in a circle
            if self._loads.get(this.key) is this:
                del self._loads[this.key]
        self._store(this.key, value, this, ttl_s, perf_counter() - started)
        return value

    async def _load_many(
        self,
        missing: list[str],
        load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]],
        ttl_s: float,
        tags: Callable[[str], Iterable[str]],
    ) -> dict[str, V]:
        begun = {key: self._begin(key, tags(key)) for key in missing}
        position = min(position for _, position in begun.values())
        own = tuple(chain.from_iterable(note for note, _ in begun.values()))
        whole = Load("", own, position)
        whole.floor = self._required(own)
        around = _around.get()
        token = _around.set(whole)
        started = perf_counter()
        try:
            answer = await (load_many(missing) if around is None else around.wait(whole, load_many(missing)))
        finally:
            _around.reset(token)
        loaded = {key: answer[key] for key in missing if key in answer}
        parts = whole.note[len(own) :]
        for key, value in loaded.items():
            reading = Reading((*begun[key][0], *parts), min(position, whole.position), whole.older)
            self._store(key, value, reading, ttl_s, perf_counter() - started)
        return loaded

    def _store(self, key: str, value: Any, reading: Reading, ttl_s: float, took: float) -> None:
        good = reading.keepable()
        prefix = _prefix(key)
        if good and not self._holds_newer(key, reading.position):
            expires = monotonic() + ttl_s * random.uniform(1 - JITTER, 1 + JITTER)
            self._entries.insert(key, Entry(value, reading, expires, prefix))
        self._events.cache_loaded(prefix, took, good)

    def _held(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values that may be served to this caller at once."""
        scope = request.current.get()
        bookmark = self._demanding(scope)
        around, now, get = _around.get(), monotonic(), self._entries.get
        found = {}
        for key in keys:
            entry: Entry | None = get(key)
            if (
                entry is None
                or entry.expires <= now
                or not entry.intact()
                or (bookmark is not None and not entry.covers(bookmark))
            ):
                continue
            if around is not None:
                around.take_part(entry)
            for sink in self._events.cache_read.sinks:
                sink(entry.prefix, "hit")
            found[key] = entry.value
        return found

    def _demanding(self, scope: request.Scope | None) -> Bookmark | None:
        """The caller's bookmark, if anything here could be too old for it."""
        if scope is None or not scope.bookmark.demands(self._writer):
            return None
        return scope.bookmark

    def _holds_newer(self, key: str, position: Position) -> bool:
        """Two loads overlapped, since the one that began first could not serve the other's session."""
        held: Entry | None = self._entries.get(key)
        return held is not None and held.position > position and held.alive()

    def _begin(self, key: str, tags: Iterable[str]) -> tuple[Note, Position]:
        """The tags as they are now, and what a load that starts now sees at least: what this process knows
        of, and its session's writes."""
        note = self._note(key, tags)
        position = self._position()
        scope = request.current.get()
        if scope is not None and scope.bookmark.demands(self._writer):
            floor = scope.bookmark.floor([tag.hash for tag, _ in note]) or position
            position = max(position, floor, scope.bookmark.forgotten)
        return note, position

    def _required(self, note: Note) -> Position:
        """What a load with these tags has to see: their invalidations here, and its session's own writes."""
        floor = max((tag.floor for tag, _ in note), default=ZERO)
        scope = request.current.get()
        if scope is None or not scope.bookmark.demands(self._writer):
            return floor
        own = scope.bookmark.floor([tag.hash for tag, _ in note]) or ZERO
        return max(floor, own, scope.bookmark.forgotten)

    def _note(self, key: str, tags: Iterable[str]) -> Note:
        """The tags as they are now. An entry depends on its own key, too."""
        if isinstance(tags, str):
            raise Misuse(f"tags={tags!r} is one text", hint=f"write tags=[{tags!r}]")
        known = self._tags
        noted = []
        for name in dict.fromkeys((key, *tags)):
            tag = known.get(name)
            if tag is None:
                tag = known[name] = Tag(name, self._floor)
            noted.append((tag, tag.version))
        return tuple(noted)

    def _forget(self, names: Iterable[str], position: Position) -> None:
        for name in names:
            tag = self._tags.get(name)
            if tag is None:
                tag = self._tags[name] = Tag(name)
            tag.version += 1
            tag.floor = max(tag.floor, position)
            self._invalidated.pop(name, None)
            self._invalidated[name] = tag
            self._entries.pop(name, None)
        while len(self._invalidated) > INVALIDATED_MAX:
            oldest = self._invalidated.pop(next(iter(self._invalidated)))
            self._floor = max(self._floor, oldest.floor)
        self._events.cache_invalidated(tuple(names))

    def _seconds(self, ttl: str | float) -> float:
        if not isinstance(ttl, str):
            return ttl
        known = self._ttls.get(ttl)
        if known is None:
            found = _DURATION.match(ttl)
            if found is None:
                raise Misuse(
                    f"ttl={ttl!r} is no duration", hint='seconds, or text like "250ms", "30s", "5m", "1h"'
                )
            known = self._ttls[ttl] = float(found[1]) * _UNITS[found[2]]
        return known


class Load(Reading):
    """A load under way: since which position, and with which versions of the tags.

    A load may get parts of its value from the cache, or wait for other loads. What those parts depend
    on is then as old as they are, and the loads that it waits for are known, so that a circle of them
    is told instead of waiting for ever.
    """

    __slots__ = ("floor", "key", "task", "waits_for")

    def __init__(self, key: str, note: Note, position: Position) -> None:
        super().__init__(note, position)
        self.key = key
        self.floor = ZERO
        self.task: asyncio.Task[Any]
        self.waits_for: set[Load] = set()

    def read_at(self, position: Position) -> None:
        """A part of it was read from a node that shows no more than this for certain (scope.Loading)."""
        self.position = min(self.position, position)

    def serves(self, bookmark: Bookmark | None) -> bool:
        """Whether a caller who comes now may have its value. A part from the cache can make this untrue
        later."""
        return self.promising() and (bookmark is None or self.covers(bookmark))

    def promising(self) -> bool:
        """Whether nothing was invalidated of what it has, or waits for."""
        return self.intact() and all(load.promising() for load in self.waits_for)

    async def wait(self, part: Load, result: Awaitable[V]) -> V:
        """The result, which is to be a part of this load's own."""
        self.waits_for.add(part)
        try:
            return await result
        finally:
            self.waits_for.discard(part)
            self.take_part(part)

    def needs(self, other: Load) -> bool:
        """Whether it waits for the other, directly or not."""
        return self is other or any(load.needs(other) for load in self.waits_for)


_around = cast("ContextVar[Load | None]", request.loading)
"""The load inside of which the caller runs."""


async def _result(load: Load, around: Load | None) -> Any:
    """The load's value; the caller may be cancelled without harm to it."""
    if around is None:
        return await asyncio.shield(load.task)
    if load.needs(around):
        raise Misuse(
            f"the load of {load.key!r} needs {around.key!r}, whose load needs {load.key!r}",
            hint="a value in the cache cannot be made from itself",
        )
    return await around.wait(load, asyncio.shield(load.task))


def _in_session() -> bool:
    scope = request.current.get()
    return scope is not None and scope.bookmark.session != 0


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _prefix(key: str) -> str:
    return key.partition(":")[0]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """When every caller has gone away, its error has nobody left to go to."""
    if not task.cancelled():
        task.exception()

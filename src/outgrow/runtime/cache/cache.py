"""og.cache: read through, with tags, and never older than the caller's own writes.

    get ─► entry, in time, none of its tags invalidated, not older than this session's writes? ─► value
             └ no ─► somebody loads it already, and began late enough? ─ yes ─► wait for that load
                        └ no ─► note position and tag versions ─► load ─► unchanged? store ─► value

The note is taken before the load, so the race 'a slow reader stores the old value after the
invalidation' cannot happen: an invalidation in between changes a version, and the value is handed
to its caller but not stored.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from time import monotonic, perf_counter
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from outgrow import endpoints
from outgrow.errors import Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark, Position
from outgrow.runtime.cache.memory import Entry, Tag, entries
from outgrow.runtime.events import Events

V = TypeVar("V")

JITTER = 0.1
"""A lifetime varies by this share, so that what was stored together does not expire together."""

DEFAULT_TTL_S = 60.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")


class Cache:
    """The cache of one process. Values are kept as they are, not copied: do not change what you get."""

    def __init__(self, settings: endpoints.Cache, events: Events, *, position: Callable[[], Position]) -> None:
        self.enabled = settings.engine != "off"
        self._entries = entries(settings.entries_max)
        self._events = events
        self._position = position
        # A tag is remembered while an entry or a load refers to it. A load that begins later begins
        # at or after the invalidation's position, so what is forgotten is not missed.
        self._tags: WeakValueDictionary[str, Tag] = WeakValueDictionary()
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
        beside its own key. Callers that miss at the same time share one load. An error of `load` is
        raised to those who waited for it, and nothing is stored.
        """
        entry: Entry | None = self._entries.get(key)
        if entry is not None and entry.expires > monotonic():
            for tag, version in entry.tags:
                if tag.version != version:
                    break
            else:
                scope = request.current.get()
                if scope is None or not scope.bookmark.tags or _new_enough(entry, scope.bookmark):
                    for sink in self._events.cache_read.sinks:
                        sink(entry.prefix, "hit")
                    return entry.value  # type: ignore[no-any-return]
        if not self.enabled:
            return await load()
        return await self._miss(key, load, self._seconds(ttl), tags)  # type: ignore[no-any-return]

    async def get_many(
        self,
        keys: Iterable[str],
        load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]],
        *,
        ttl: str | float = DEFAULT_TTL_S,
        tags: Callable[[str], Iterable[str]] = lambda key: (),
    ) -> dict[str, V]:
        """The values of many keys; `load_many` is called once with those that are missing.

        A key that `load_many` does not return is absent from the result. `tags` gives a key's tags.
        """
        wanted = list(dict.fromkeys(keys))
        if not self.enabled:
            return dict(await load_many(wanted)) if wanted else {}
        found = {key: entry.value for key in wanted if (entry := self._good(key)) is not None}
        missing = [key for key in wanted if key not in found]
        self._tell_many(found, missing)
        if missing:
            position = self._position()
            notes = {key: self._note(key, tags(key)) for key in missing}
            started = perf_counter()
            loaded = await load_many(missing)
            for key, value in loaded.items():
                if key in notes:
                    self._store(key, value, position, notes[key], self._seconds(ttl), perf_counter() - started)
            found.update(loaded)
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

    def _good(self, key: str) -> Entry | None:
        entry: Entry | None = self._entries.get(key)
        if entry is None or entry.expires <= monotonic():
            return None
        for tag, version in entry.tags:
            if tag.version != version:
                return None
        scope = request.current.get()
        if scope is not None and scope.bookmark.tags and not _new_enough(entry, scope.bookmark):
            return None
        return entry

    async def _miss(
        self, key: str, load: Callable[[], Awaitable[Any]], ttl_s: float, tags: Iterable[str]
    ) -> Any:
        running = self._loads.get(key)
        scope = request.current.get()
        if running is not None and running.serves(scope.bookmark if scope is not None else None):
            self._events.cache_read(_prefix(key), "waited")
            return await asyncio.shield(running.task)
        self._events.cache_read(_prefix(key), "miss")
        started = Load(self._position(), self._note(key, tags))
        # A task of its own: when the caller who happened to be first goes away, the others still get it.
        context = copy_context()
        context.run(request.unit_of_work.set, None)
        started.task = asyncio.get_running_loop().create_task(self._load(key, load, started, ttl_s), context=context)
        started.task.add_done_callback(_retrieve)
        self._loads[key] = started
        return await asyncio.shield(started.task)

    async def _load(self, key: str, load: Callable[[], Awaitable[Any]], this: Load, ttl_s: float) -> Any:
        started = perf_counter()
        try:
            value = await load()
        finally:
            if self._loads.get(key) is this:
                del self._loads[key]
        self._store(key, value, this.position, this.note, ttl_s, perf_counter() - started)
        return value

    def _store(
        self, key: str, value: Any, position: Position, note: tuple[tuple[Tag, int], ...], ttl_s: float, took: float
    ) -> None:
        good = all(tag.version == version and position >= tag.floor for tag, version in note)
        if good:
            expires = monotonic() + ttl_s * random.uniform(1 - JITTER, 1 + JITTER)
            self._entries.insert(key, Entry(value, position, expires, note, _prefix(key)))
        self._events.cache_loaded(_prefix(key), took, good)

    def _note(self, key: str, tags: Iterable[str]) -> tuple[tuple[Tag, int], ...]:
        """The tags as they are now. An entry depends on its own key, too."""
        if isinstance(tags, str):
            raise Misuse(f"tags={tags!r} is one text", hint=f"write tags=[{tags!r}]")
        noted = []
        for name in dict.fromkeys((key, *tags)):
            tag = self._tags.get(name)
            if tag is None:
                tag = self._tags[name] = Tag(name, Position(0, 0))
            noted.append((tag, tag.version))
        return tuple(noted)

    def _forget(self, names: Iterable[str], position: Position) -> None:
        for name in names:
            tag = self._tags.get(name)
            if tag is not None:
                tag.version += 1
                tag.floor = max(tag.floor, position)
            self._entries.pop(name, None)
        self._events.cache_invalidated(tuple(names))

    def _tell_many(self, found: Mapping[str, Any], missing: Iterable[str]) -> None:
        for key in found:
            self._events.cache_read(_prefix(key), "hit")
        for key in missing:
            self._events.cache_read(_prefix(key), "miss")

    def _seconds(self, ttl: str | float) -> float:
        if not isinstance(ttl, str):
            return ttl
        known = self._ttls.get(ttl)
        if known is None:
            found = _DURATION.match(ttl)
            if found is None:
                raise Misuse(f"ttl={ttl!r} is no duration", hint='seconds, or text like "250ms", "30s", "5m", "1h"')
            known = self._ttls[ttl] = float(found[1]) * _UNITS[found[2]]
        return known


class Load:
    """A load under way: since which position, and with which versions of the tags."""

    __slots__ = ("note", "position", "task")

    def __init__(self, position: Position, note: tuple[tuple[Tag, int], ...]) -> None:
        self.position = position
        self.note = note
        self.task: asyncio.Task[Any]

    def serves(self, bookmark: Bookmark | None) -> bool:
        """Whether a caller who comes now may have its value: nothing was invalidated since it began."""
        for tag, version in self.note:
            if tag.version != version:
                return False
            floor = bookmark.tag_floor(tag.name) if bookmark is not None else None
            if floor is not None and floor > self.position:
                return False
        return True


def _new_enough(entry: Entry, bookmark: Bookmark) -> bool:
    """Whether the session wrote none of the entry's tags after it was read."""
    for tag, _ in entry.tags:
        floor = bookmark.tag_floor(tag.name)
        if floor is not None and floor > entry.position:
            return False
    return True


def _prefix(key: str) -> str:
    return key.partition(":")[0]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """When every caller has gone away, its error has nobody left to go to."""
    if not task.cancelled():
        task.exception()

"""How values come into the cache: from what all processes share, or by one load for all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from outgrow import endpoints
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Bookmark, Position, Writer
from outgrow.runtime.cache.limit import Limit, placed
from outgrow.runtime.cache.load import Load, around, being_cancelled, result
from outgrow.runtime.cache.memory import Entry, Reading
from outgrow.runtime.cache.store import Store
from outgrow.runtime.cache.tags import Tags
from outgrow.runtime.cache.wanted import Wanted, early, prefix_of
from outgrow.runtime.events import Events

if TYPE_CHECKING:
    from outgrow.runtime.cache.shared import Shared

V = TypeVar("V")

REFRESH_AGAIN_S = 1.0


class Loads:
    """The entries of this process, and the loads under way, of which so many run at once.

    `position` is the newest that is known here.
    """

    def __init__(
        self,
        settings: endpoints.Cache,
        events: Events,
        position: Callable[[], Position],
        writer: Writer,
        places: int,
    ) -> None:
        self.limit = Limit(places, lambda seconds: events.cache_waited("place", seconds))
        self.store = Store(settings)
        self.entries, self.hot = self.store.entries, self.store.hot
        self.tags = Tags()
        self.shared: Shared | None = None
        self.running: dict[str, Load] = {}
        self._events, self._position, self._writer = events, position, writer
        self._working: set[asyncio.Task[Any]] = set()

    async def join(
        self, wanted: Wanted, load: Callable[[], Awaitable[Any]], outcome: str, *, strict: bool
    ) -> tuple[Any, Position]:
        """The value, and what it shows, from a load that goes on already or from one that begins now.

        With `strict` that which goes on must know all that it depends on.
        """
        if self.shared is not None and wanted.codec is not None and wanted.key not in self.running:
            began = monotonic()
            entry = await self.shared.look(wanted)
            self._events.cache_looked(monotonic() - began)
            if entry is not None and self.good(entry) and not self._holds_newer(wanted.key, entry.position):
                return self._shared(wanted, load, entry), entry.floor
        bookmark = self._demanding(request.current.get())
        while True:
            running = self.running.get(wanted.key)
            if running is None or not running.serves(bookmark) or (strict and not running.noted()):
                started = self._start(wanted, load, outcome)
                return await result(started, around.get()), started.shows()
            if placed.get():
                running.part = True
                self.limit.hurry(running)
            try:
                value = await result(running, around.get())
            except asyncio.CancelledError:
                if not running.task.cancelled() or being_cancelled():
                    raise
                continue  # that load was cancelled from within, which is no business of this caller
            if bookmark is None or running.covers(bookmark):
                self._events.cache_read(prefix_of(wanted.key), "waited")
                return value, running.shows()

    def _shared(self, wanted: Wanted, load: Callable[[], Awaitable[Any]], entry: Entry) -> Any:
        """Its value, which all processes share."""
        if self.entries.get(wanted.key) is not entry:
            self.store.insert(wanted.key, entry)
        if entry.expires <= monotonic():
            self.refresh(wanted, load, entry)
            return self.served(entry)
        outer = around.get()
        if outer is not None:
            outer.take_part(entry)
        self._events.cache_read(entry.prefix, "shared")
        return entry.value

    def served(self, entry: Entry) -> Any:
        """It is old, and being loaded anew."""
        outer = around.get()
        if outer is not None:
            outer.take_part(entry)
        self._events.cache_read(entry.prefix, "old")
        return entry.value

    def refresh(self, wanted: Wanted, load: Callable[[], Awaitable[Any]], held: Entry) -> None:
        """Nobody waits for it. If it fails, the next attempt is a moment later."""
        if wanted.key in self.running:
            return
        held.expires = min(held.until, monotonic() + REFRESH_AGAIN_S)
        self._start(wanted, load, "refresh", anew=True)

    def refresh_many(
        self, asked: list[Wanted], load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]]
    ) -> None:
        """The same for many."""
        for each in asked:
            held = self.store.get(each.key)
            if held is not None:  # others may have taken its place already
                held.expires = min(held.until, monotonic() + REFRESH_AGAIN_S)
        # It is no part of the load that goes on meanwhile.
        token, inside = around.set(None), placed.set(False)
        self._work(self._load_many(asked, load_many))
        around.reset(token)
        placed.reset(inside)

    def _start(
        self, wanted: Wanted, load: Callable[[], Awaitable[Any]], outcome: str, *, anew: bool = False
    ) -> Load:
        started = Load(wanted.key, (), ZERO)
        self._begin(started, wanted.tags)
        inside = placed.set(placed.get() and not anew)  # what nobody waits for is a part of nothing
        # A task of its own: when the caller who happened to be first goes away, the others still get it.
        started.task = asyncio.get_running_loop().create_task(
            self._bring(started, wanted, load, outcome, anew=anew)
        )
        placed.reset(inside)
        started.task.add_done_callback(retrieve)
        self.running[wanted.key] = started
        return started

    async def _bring(
        self, this: Load, wanted: Wanted, load: Callable[[], Awaitable[Any]], outcome: str, *, anew: bool
    ) -> Any:
        """From what all processes share, or by loading it."""
        token = around.set(this)
        key = ""
        try:
            if self.shared is not None and self.shared.up:
                key, entry = await self.shared.find(wanted, self.store.get(wanted.key), anew=anew)
                if entry is not None and self.good(entry):
                    return self._taken(this, entry)
                self._begin(this, wanted.tags)
            self._events.cache_read(prefix_of(wanted.key), outcome)
            value, took = await self._run(this, wanted, load)
            if self._store(wanted, value, this, took, key):
                key = ""
            return value
        finally:
            around.reset(token)  # else task, context and load refer to each other in a circle
            if self.running.get(this.key) is this:
                del self.running[this.key]
            if key and self.shared is not None:
                self.shared.give_up(wanted, key)

    async def _run(self, this: Load, wanted: Wanted, load: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
        """What it loads in its turn, and how long that took."""
        part = placed.get() or this.part
        if not part and await self.limit.enter(this):
            self._begin(this, wanted.tags)  # what was noted before it waited may not hold any more
        placed.set(True)
        started = perf_counter()
        try:
            return await load(), perf_counter() - started
        finally:
            if not part:
                self.limit.leave()

    def _taken(self, this: Load, entry: Entry) -> Any:
        """What lay there is what this load brings."""
        this.depends_on(entry.note)
        this.position, this.older = entry.position, entry.older
        self.store.insert(this.key, entry)
        self._events.cache_read(entry.prefix, "shared")
        return entry.value

    def good(self, entry: Entry) -> bool:
        """Whether it is intact, and the caller's session has written none of it since."""
        if not entry.intact():
            return False
        bookmark = self._demanding(request.current.get())
        return bookmark is None or entry.covers(bookmark)

    async def bring_many(
        self, asked: list[Wanted], load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]]
    ) -> tuple[dict[str, Any], Position]:
        """From what all processes share, or by loading them; and what they show together."""
        found: dict[str, Any] = {}
        shown, old = ZERO, set()
        held = [self.tags.note(each.tags) for each in asked]  # tags are known while they are held
        if self.shared is not None and self.shared.up:
            for key, entry in (await self.shared.find_many(asked)).items():
                if self.good(entry):
                    outer = around.get()
                    if outer is not None:
                        outer.take_part(entry)
                    self.store.insert(key, entry)
                    self._events.cache_read(entry.prefix, "shared")
                    self.hot.note(key)
                    found[key] = entry.value
                    shown = max(shown, entry.floor)
                    if entry.expires <= monotonic():
                        old.add(key)
        if old:
            self.refresh_many([each for each in asked if each.key in old], load_many)
        missing = [each for each in asked if each.key not in found]
        for each in missing:
            self._events.cache_read(prefix_of(each.key), "miss")
            self.hot.note(each.key)
        if missing:
            found.update(await self._load_many(missing, load_many))
        del held
        return found, shown

    async def _load_many(
        self, missing: list[Wanted], load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]]
    ) -> dict[str, V]:
        return await self.limit.run(lambda: self._load_these(missing, load_many))

    async def _load_these(
        self, missing: list[Wanted], load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]]
    ) -> dict[str, V]:
        begun = {each.key: Load(each.key, (), ZERO) for each in missing}
        for each in missing:
            self._begin(begun[each.key], each.tags)
        own = tuple(chain.from_iterable(load.note for load in begun.values()))
        whole = Load("", own, min(load.position for load in begun.values()))
        whole.floor = max(load.floor for load in begun.values())
        position = whole.position
        outer = around.get()
        token = around.set(whole)
        started = perf_counter()
        asked = load_many([each.key for each in missing])
        try:
            answer = await (asked if outer is None else outer.wait(whole, asked))
        finally:
            around.reset(token)
        took, parts = perf_counter() - started, whole.note[len(own) :]
        loaded = [each for each in missing if each.key in answer]
        for each in loaded:
            note = (*begun[each.key].note, *parts)
            self._store(
                each, answer[each.key], Reading(note, min(position, whole.position), whole.older), took
            )
        return {each.key: answer[each.key] for each in loaded}

    def _store(self, wanted: Wanted, value: Any, reading: Reading, took: float, token: str = "") -> bool:
        """Whether it was put where all processes find it."""
        key, good, prefix, shared = wanted.key, reading.keepable(), prefix_of(wanted.key), False
        if good and not self._holds_newer(key, reading.position):
            ttl_s, now = wanted.life.of(value), monotonic()
            entry = Entry(
                value,
                reading,
                now + ttl_s - early(took, ttl_s, self.hot.readers(key, took)),
                now + ttl_s + wanted.life.stale,
                prefix,
            )
            self.store.insert(key, entry)
            if self.shared is not None and wanted.codec is not None:
                self.shared.keep(wanted, entry, token)
                shared = True
        self._events.cache_loaded(prefix, took, good)
        return shared

    def held(self, keys: Iterable[str]) -> tuple[dict[str, Any], list[str], Position]:
        """The values that may be served to this caller at once, which of them are to be loaded anew, and what
        they show together."""
        scope = request.current.get()
        bookmark = self._demanding(scope)
        outer, now, get = around.get(), monotonic(), self.store.get
        found, old, shown = {}, [], ZERO
        for key in keys:
            entry = get(key)
            if (
                entry is None
                or entry.until <= now
                or not entry.intact()
                or (bookmark is not None and not entry.covers(bookmark))
            ):
                continue
            if outer is not None:
                outer.take_part(entry)
            for sink in self._events.cache_read.sinks:
                sink(entry.prefix, "hit")
            entry.reads += 1
            found[key] = entry.value
            shown = max(shown, entry.floor)
            if entry.expires <= now:
                old.append(key)
        return found, old, shown

    def _demanding(self, scope: request.Scope | None) -> Bookmark | None:
        """The caller's bookmark, if anything here could be too old for it."""
        if scope is None or not scope.bookmark.demands(self._writer):
            return None
        return scope.bookmark

    def _holds_newer(self, key: str, position: Position) -> bool:
        """Two loads overlapped, since the one that began first could not serve the other's session."""
        held = self.store.get(key)
        return held is not None and held.position > position and held.alive()

    def _begin(self, this: Load, tags: Sequence[str]) -> None:
        """The tags as they are now, and what a load that starts now sees at least: what this process knows
        of, and its session's writes. It has to see what has invalidated its tags, and those writes."""
        note = self.tags.note(tags)
        this.depends_on(note)
        position = self._position()
        floor = max((tag.floor for tag, _ in note), default=ZERO)
        scope = request.current.get()
        if scope is not None and scope.bookmark.demands(self._writer):
            own, forgotten = scope.bookmark.floor(this.hashes), scope.bookmark.forgotten
            position = max(position, own or position, forgotten)
            floor = max(floor, own or ZERO, forgotten)
        this.position = position if self.shared is None else max(position, floor)
        this.floor = floor

    def keep(self, wanted: Wanted, value: Any, position: Position) -> None:
        """Store what a transaction has written at this position, unless it has been changed since."""
        self._work(self._keep(wanted, value, position))

    async def _keep(self, wanted: Wanted, value: Any, position: Position) -> None:
        held = self.tags.note(wanted.tags)
        if self.shared is not None and self.shared.up and not await self.shared.note(wanted):
            return
        self._store(wanted, value, Reading(self.tags.note(wanted.tags), position), 0.0)
        del held

    def _work(self, work: Coroutine[Any, Any, Any]) -> None:
        """Nobody waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        task.add_done_callback(retrieve)


def retrieve(task: asyncio.Future[Any]) -> None:
    """When every caller has gone away, its error has nobody left to go to."""
    if not task.cancelled():
        task.exception()

"""og.cache: read through, with tags, and never older than the caller's own writes.

    get ─► entry, in time, none of its tags invalidated, not older than this session's writes? ─► value
             └ no ─► somebody loads it already, and began late enough? ─ yes ─► wait for that load
                        └ no ─► note position and tag versions ─► load ─► unchanged? store ─► value

The note is taken before the load, so the race 'a slow reader stores the old value after the
invalidation' cannot happen: an invalidation in between changes a version, and the value is handed
to its caller but not stored.

A write block passes the cache by: what its transaction reads is not committed, so it must not be
kept, and what others have kept is not what its transaction sees. Where there are several histories (other
processes, replicas) sessions pass it by as well, since what is kept here may be older than what they have
seen elsewhere; unless all processes share a cache (shared.py), by which each hears of what the others write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import chain
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from outgrow import endpoints
from outgrow.errors import Unavailable
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Bookmark, Position, Writer
from outgrow.runtime.cache.codec import Codec, codec_of
from outgrow.runtime.cache.load import Load, around, result
from outgrow.runtime.cache.memory import Entry, Reading, entries
from outgrow.runtime.cache.tags import Tags
from outgrow.runtime.cache.wanted import Life, Wanted, early, names, seconds
from outgrow.runtime.events import Events

if TYPE_CHECKING:
    from outgrow.runtime.cache.shared import Shared

V = TypeVar("V")

DEFAULT_TTL_S = 60.0
REFRESH_AGAIN_S = 1.0
EVERYTHING = "*"
"""A tag that everything has where processes share a cache."""


class Cache:
    """The cache of one process. Values are kept as they are, not copied: do not change what you get.

    Other processes do not hear of an invalidation, and an entry there lives until its `ttl` is over, unless
    they share a cache (`use`). `for_sessions` is whether callers with a session get what is kept here without
    a look there.
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
        self.tags = Tags()
        self._loads: dict[str, Load] = {}
        self._refreshing: set[asyncio.Task[Any]] = set()
        self._shared: Shared | None = None

    async def get(
        self,
        key: str,
        load: Callable[[], Awaitable[V]],
        *,
        ttl: str | float = DEFAULT_TTL_S,
        tags: Iterable[str] = (),
        stale: str | float = 0.0,
        missing: str | float | None = None,
        within: str | float | None = None,
        type: Any = None,
    ) -> V:
        """The value of `key`; what `load` returns when it is not there.

        `ttl` is seconds or text like "5m" (it varies by 10%); `tags` are what the value depends on,
        beside its own key and whatever `load` itself gets from the cache: a key's are the same
        wherever it is asked for. Callers that miss at the same time share one load, which goes on
        when they go away. An error of `load` is raised to those who waited for it, and nothing is
        stored. Inside a write block it is just `load()`.

        What is used shortly before its time is over is loaded anew meanwhile (wanted.early). For `stale`
        after it, it is still served, while it is loaded anew or cannot be; what was invalidated never is.
        What `load` finds to be None lives for `missing`. Raises Unavailable for a load that takes longer
        than `within`.

        Where processes share a cache, the value goes there as its `type` says, by default what `load` is
        annotated to return (see codec.py); a value of no known type stays in its process.
        """
        if not self._for_sessions and _in_session() and not await self._current():
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
                    outer = around.get()
                    if outer is not None:
                        outer.take_part(entry)
                    for sink in self._events.cache_read.sinks:
                        sink(entry.prefix, "hit")
                    return entry.value  # type: ignore[no-any-return]
        if not self.enabled or request.unit_of_work.get() is not None:
            return await load()
        life = Life(seconds(ttl), seconds(stale), None if missing is None else seconds(missing))
        wanted = self._wanted(key, tags, life, None if self._shared is None else codec_of(load, type))
        if entry is not None and entry.expires <= monotonic() and entry.alive() and self._good(entry):
            self._refresh(wanted, load, entry)
            return self._served(entry)  # type: ignore[no-any-return]
        outcome = "miss" if entry is None or entry.until <= monotonic() else "stale"
        try:
            async with asyncio.timeout(None if within is None else seconds(within)):
                return await self._join_or_load(wanted, load, outcome)  # type: ignore[no-any-return]
        except TimeoutError as error:
            if within is None:
                raise
            raise Unavailable(f"the load of {key!r} took longer than {within}") from error

    async def get_many(
        self,
        keys: Iterable[str],
        load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]],
        *,
        ttl: str | float = DEFAULT_TTL_S,
        tags: Callable[[str], Iterable[str]] = lambda key: (),
        stale: str | float = 0.0,
        type: Any = None,
    ) -> dict[str, V]:
        """The values of many keys; `load_many` is called once with those that are missing.

        A key that `load_many` does not return is absent from the result, one that it was not asked
        for is left out. `tags` gives a key's tags, `type` is that of one value; for `stale` see `get`. Loads
        of several callers are not shared.
        """
        wanted = list(dict.fromkeys(keys))
        if not self._for_sessions and _in_session() and not await self._current():
            for key in wanted:
                self._events.cache_read(_prefix(key), "session")
            loaded = await load_many(wanted) if wanted else {}
            return {key: loaded[key] for key in wanted if key in loaded}
        if not self.enabled or request.unit_of_work.get() is not None:
            loaded = await load_many(wanted) if wanted else {}
            return {key: loaded[key] for key in wanted if key in loaded}
        found, old = self._held(wanted)
        if old or len(found) < len(wanted):
            codec = None if self._shared is None else codec_of(load_many, type, many=True)
            life = Life(seconds(ttl), seconds(stale))

            def asked(keys: Iterable[str]) -> list[Wanted]:
                return [self._wanted(key, tags(key), life, codec) for key in keys]

            if old:
                self._refresh_many(asked(old), load_many)
            if len(found) < len(wanted):
                missing = asked(key for key in wanted if key not in found)
                found.update(await self._bring_many(missing, load_many))
        return {key: found[key] for key in wanted if key in found}

    def invalidate(self, *tags: str) -> None:
        """Forget every entry with one of these tags or keys.

        Inside a write block it takes effect when, and only when, the transaction commits.
        """
        unit = request.unit_of_work.get()
        if unit is None:
            self._forget(tags, self._position())
            if self._shared is not None:
                self._shared.owe(tags, self._position())
            return
        unit.after_commit(lambda position: self._forget(tags, position), tags)
        if self._shared is not None:
            unit.announced_by(self._shared)

    def serve_sessions(self, yes: bool) -> None:
        """Whether sessions are served from now on. If they were not, what is kept may be too old for them."""
        if yes and not self._for_sessions:
            self.clear()
        self._for_sessions = yes

    def clear(self) -> None:
        """Forget everything, here; loads under way are not stored."""
        self._forget(list(self.tags.known), self._position())
        self._entries.clear()

    def _failed_over(self, *_: object) -> None:
        """What was read of another primary may be lost: nobody can tell from an entry whether it is."""
        if self._shared is not None:
            self.invalidate(EVERYTHING)

    async def use(self, shared: Shared | None) -> None:
        """From now on what all processes share, or nothing of that kind. What is kept here is forgotten."""
        before, self._shared = self._shared, None
        if before is not None:
            await before.close()
            self.tags.shares = False
        elif shared is not None:
            self._events.query_finished.subscribe(_observe, bind=lambda node, label: _observe)
            self._events.failed_over.subscribe(self._failed_over)
        if shared is not None:
            await shared.open()
        self.clear()
        self._shared = shared

    async def check(self) -> str:
        """For the deep health check. Raises Unavailable while what all processes share cannot be asked."""
        if self._shared is not None and not self._shared.up:
            raise Unavailable(
                f"the shared cache: {self._shared.trouble}", hint="until then each process has its own"
            )
        return f"{len(self._entries)} entries" if self.enabled else "off"

    def figures(self) -> dict[str, int]:
        """How much it holds."""
        return {"entries": len(self._entries), "loads": len(self._loads)}

    def _wanted(self, key: str, tags: Iterable[str], life: Life, codec: Codec | None) -> Wanted:
        every = () if self._shared is None else (EVERYTHING,)
        return Wanted(key, names(key, tags, every), codec, life)

    async def _current(self) -> bool:
        """Whether this session may be served from memory: nothing that it may have seen is unknown here."""
        scope = request.current.get()
        return self._shared is not None and scope is not None and await self._shared.current(scope)

    async def _join_or_load(self, wanted: Wanted, load: Callable[[], Awaitable[Any]], outcome: str) -> Any:
        bookmark = self._demanding(request.current.get())
        strict = not self._for_sessions and _in_session()
        while True:
            running = self._loads.get(wanted.key)
            if running is None or not running.serves(bookmark) or (strict and not running.noted()):
                return await result(self._start(wanted, load, outcome), around.get())
            try:
                value = await result(running, around.get())
            except asyncio.CancelledError:
                if not running.task.cancelled() or _being_cancelled():
                    raise
                continue  # that load was cancelled from within, which is no business of this caller
            if bookmark is None or running.covers(bookmark):
                self._events.cache_read(_prefix(wanted.key), "waited")
                return value

    def _served(self, entry: Entry) -> Any:
        """It is old, and being loaded anew."""
        outer = around.get()
        if outer is not None:
            outer.take_part(entry)
        self._events.cache_read(entry.prefix, "old")
        return entry.value

    def _refresh(self, wanted: Wanted, load: Callable[[], Awaitable[Any]], held: Entry) -> None:
        """Nobody waits for it. If it fails, the next attempt is a moment later."""
        if wanted.key in self._loads:
            return
        held.expires = min(held.until, monotonic() + REFRESH_AGAIN_S)
        self._start(wanted, load, "refresh", anew=True)

    def _refresh_many(
        self, asked: list[Wanted], load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]]
    ) -> None:
        for each in asked:
            held: Entry = self._entries[each.key]
            held.expires = min(held.until, monotonic() + REFRESH_AGAIN_S)
        token = around.set(None)  # it is no part of the load that goes on meanwhile
        task = asyncio.get_running_loop().create_task(self._load_many(asked, load_many))
        around.reset(token)
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)
        task.add_done_callback(_retrieve)

    def _start(
        self, wanted: Wanted, load: Callable[[], Awaitable[Any]], outcome: str, *, anew: bool = False
    ) -> Load:
        started = Load(wanted.key, (), ZERO)
        self._begin(started, wanted.tags)
        # A task of its own: when the caller who happened to be first goes away, the others still get it.
        started.task = asyncio.get_running_loop().create_task(
            self._bring(started, wanted, load, outcome, anew=anew)
        )
        started.task.add_done_callback(_retrieve)
        self._loads[wanted.key] = started
        return started

    async def _bring(
        self, this: Load, wanted: Wanted, load: Callable[[], Awaitable[Any]], outcome: str, *, anew: bool
    ) -> Any:
        """From what all processes share, or by loading it."""
        token = around.set(this)
        key = ""
        try:
            if self._shared is not None and self._shared.up:
                key, entry = await self._shared.find(wanted, self._entries.get(wanted.key), anew=anew)
                if entry is not None and self._good(entry):
                    return self._taken(this, entry)
                self._begin(this, wanted.tags)
            self._events.cache_read(_prefix(wanted.key), outcome)
            started = perf_counter()
            value = await load()
            if self._store(wanted, value, this, perf_counter() - started, key):
                key = ""
            return value
        finally:
            around.reset(token)  # else task, context and load refer to each other in a circle
            if self._loads.get(this.key) is this:
                del self._loads[this.key]
            if key and self._shared is not None:
                self._shared.give_up(wanted, key)

    def _taken(self, this: Load, entry: Entry) -> Any:
        """What lay there is what this load brings."""
        this.note, this.hashes, this.position, this.older = (
            entry.note, entry.hashes, entry.position, entry.older,
        )  # fmt: skip
        self._entries.insert(this.key, entry)
        self._events.cache_read(entry.prefix, "shared")
        return entry.value

    def _good(self, entry: Entry) -> bool:
        """For the caller's session."""
        bookmark = self._demanding(request.current.get())
        return bookmark is None or entry.covers(bookmark)

    async def _bring_many(
        self, asked: list[Wanted], load_many: Callable[[list[str]], Awaitable[Mapping[str, V]]]
    ) -> dict[str, Any]:
        """See `_bring`."""
        found: dict[str, Any] = {}
        held = [self.tags.note(each.tags) for each in asked]  # tags are known while they are held
        if self._shared is not None and self._shared.up:
            for key, entry in (await self._shared.find_many(asked)).items():
                if self._good(entry):
                    outer = around.get()
                    if outer is not None:
                        outer.take_part(entry)
                    self._entries.insert(key, entry)
                    self._events.cache_read(entry.prefix, "shared")
                    found[key] = entry.value
        missing = [each for each in asked if each.key not in found]
        for each in missing:
            self._events.cache_read(_prefix(each.key), "miss")
        if missing:
            found.update(await self._load_many(missing, load_many))
        del held
        return found

    async def _load_many(
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
        key, good, prefix, shared = wanted.key, reading.keepable(), _prefix(wanted.key), False
        if good and not self._holds_newer(key, reading.position):
            ttl_s, now = wanted.life.of(value), monotonic()
            entry = Entry(
                value, reading, now + ttl_s - early(took, ttl_s), now + ttl_s + wanted.life.stale, prefix
            )
            self._entries.insert(key, entry)
            if self._shared is not None and wanted.codec is not None:
                self._shared.keep(wanted, entry, token)
                shared = True
        self._events.cache_loaded(prefix, took, good)
        return shared

    def _held(self, keys: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        """The values that may be served to this caller at once, and which of them are to be loaded anew."""
        scope = request.current.get()
        bookmark = self._demanding(scope)
        outer, now, get = around.get(), monotonic(), self._entries.get
        found, old = {}, []
        for key in keys:
            entry: Entry | None = get(key)
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
            found[key] = entry.value
            if entry.expires <= now:
                old.append(key)
        return found, old

    def _demanding(self, scope: request.Scope | None) -> Bookmark | None:
        """The caller's bookmark, if anything here could be too old for it."""
        if scope is None or not scope.bookmark.demands(self._writer):
            return None
        return scope.bookmark

    def _holds_newer(self, key: str, position: Position) -> bool:
        """Two loads overlapped, since the one that began first could not serve the other's session."""
        held: Entry | None = self._entries.get(key)
        return held is not None and held.position > position and held.alive()

    def _begin(self, this: Load, tags: Sequence[str]) -> None:
        """The tags as they are now, and what a load that starts now sees at least: what this process knows
        of, and its session's writes. It has to see what has invalidated its tags, and those writes."""
        this.note = note = self.tags.note(tags)
        this.hashes = frozenset([tag.hash for tag, _ in note])
        position = self._position()
        floor = max((tag.floor for tag, _ in note), default=ZERO)
        scope = request.current.get()
        if scope is not None and scope.bookmark.demands(self._writer):
            own, forgotten = scope.bookmark.floor(this.hashes), scope.bookmark.forgotten
            position = max(position, own or position, forgotten)
            floor = max(floor, own or ZERO, forgotten)
        this.position = position if self._shared is None else max(position, floor)
        this.floor = floor

    def _forget(self, names: Iterable[str], position: Position) -> None:
        self.tags.forget(names, position)
        for name in names:
            self._entries.pop(name, None)
        self._events.cache_invalidated(tuple(names))


def _in_session() -> bool:
    scope = request.current.get()
    return scope is not None and scope.bookmark.session != 0


def _observe(*_: object) -> None:
    """A query may have shown something new to its session."""
    scope = request.current.get()
    if scope is not None:
        scope.observed += 1


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _prefix(key: str) -> str:
    return key.partition(":")[0]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """When every caller has gone away, its error has nobody left to go to."""
    if not task.cancelled():
        task.exception()

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
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec

from outgrow import endpoints
from outgrow.errors import OutsideUnitOfWork, Unavailable
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark, Position, Writer
from outgrow.runtime.cache.changes import Declared, TagsOf
from outgrow.runtime.cache.codec import Codec, codec_of, codec_of_load, returned
from outgrow.runtime.cache.functions import Cached
from outgrow.runtime.cache.limit import places_of
from outgrow.runtime.cache.load import around
from outgrow.runtime.cache.loads import Loads, retrieve
from outgrow.runtime.cache.memory import Entry
from outgrow.runtime.cache.wanted import Life, Wanted, life_of, names, prefix_of, seconds
from outgrow.runtime.events import Events

if TYPE_CHECKING:
    from outgrow.runtime.cache.shared import Shared

P = ParamSpec("P")
V = TypeVar("V")

DEFAULT_TTL_S = 60.0
LOADS_MAX = places_of(10)
REPORTED = 100
"""Keys of each process, of which those of all processes together are found."""

ONCE = "cache.once"


class Cache:
    """The cache of one process. Values are kept as they are, not copied: do not change what you get.

    Other processes do not hear of an invalidation, and an entry there lives until its `ttl` is over, unless
    they share a cache (`use`). `for_sessions` is whether callers with a session get what is kept here without
    a look there. `saw` is told what a caller has been shown, if that is not older than `news_s`: not every
    replica may show it yet. `stands` is whether nothing of what a session knows can have been lost. At most
    `places` loads run at once (limit.py).
    """

    def __init__(
        self,
        settings: endpoints.Cache,
        events: Events,
        *,
        position: Callable[[], Position],
        writer: Writer | None = None,
        for_sessions: bool = True,
        saw: Callable[[Position], None] = lambda position: None,
        news_s: float = 0.0,
        stands: Callable[[Bookmark], bool] = lambda bookmark: True,
        places: int = LOADS_MAX,
    ) -> None:
        self.enabled = settings.engine != "off" and settings.entries_max > 0
        self._for_sessions = for_sessions
        self._saw, self._news_s, self._stands = saw, news_s, stands
        self._events = events
        self._position = position
        self._writer = writer or Writer()
        self._loads = Loads(settings, events, position, self._writer, places)
        self.limit = self._loads.limit
        self.store, self.tags = self._loads.store, self._loads.tags
        self._entries, self.hot, self._kept = self.store.entries, self.store.hot, self.store.hot.kept
        self._shared: Shared | None = None
        self._alone, self._unheard_s = True, settings.unheard_s
        self.among(settings)
        events.cache_shared.subscribe(self._came)
        self.declared = Declared()

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

        `ttl` is seconds or text like "5m" (it varies by 10%), and no longer than `[cache] unheard` where
        other processes write of which this one does not hear; `tags` are what the value depends on,
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
        strict = not self._for_sessions and _in_session()
        if strict and not await self._current():
            self._events.cache_read(prefix_of(key), "session")
            self.hot.note(key)
            return await self._past(load, key, within)
        entry: Entry | None = self._entries.get(key) or self._kept.get(key)
        # The hottest lines of the tier, so `intact` is written out: a call more is a tenth more.
        now = monotonic()
        if entry is not None and entry.expires > now:
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
                    entry.reads += 1
                    if entry.born > now - self._news_s:
                        self._saw(entry.floor)
                    return entry.value  # type: ignore[no-any-return]
        if not self.enabled or request.unit_of_work.get() is not None:
            return await load()
        self.hot.note(key)
        life = life_of(ttl, stale, missing)
        wanted = self._wanted(key, tags, life, None if self._shared is None else codec_of_load(load, type))
        if entry is not None and entry.expires <= now < entry.until and self._loads.good(entry):
            self._loads.refresh(wanted, load, entry)
            value, shown = self._loads.served(entry), entry.floor
        else:
            outcome = "miss" if entry is None or entry.until <= now else "stale"
            loaded = self._loads.join(wanted, load, outcome, strict=strict)
            value, shown = await (loaded if within is None else _within(loaded, key, within))
        self._saw(shown)
        return value  # type: ignore[no-any-return]

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
        strict = not self._for_sessions and _in_session()
        if strict and not await self._current():
            for key in wanted:
                self._events.cache_read(prefix_of(key), "session")
                self.hot.note(key)
            loaded = await self._past(lambda: load_many(wanted)) if wanted else {}
            return {key: loaded[key] for key in wanted if key in loaded}
        if not self.enabled or request.unit_of_work.get() is not None:
            loaded = await load_many(wanted) if wanted else {}
            return {key: loaded[key] for key in wanted if key in loaded}
        found, old, shown = self._loads.held(wanted)
        if old or len(found) < len(wanted):
            codec = None if self._shared is None else codec_of_load(load_many, type, many=True)
            life = life_of(ttl, stale)

            def asked(keys: Iterable[str]) -> list[Wanted]:
                return [self._wanted(key, tags(key), life, codec) for key in keys]

            if old:
                self._loads.refresh_many(asked(old), load_many)
            if len(found) < len(wanted):
                missing = asked(key for key in wanted if key not in found)
                brought, more = await self._loads.bring_many(missing, load_many)
                found.update(brought)
                shown = max(shown, more)
        self._saw(shown)
        return {key: found[key] for key in wanted if key in found}

    def put(
        self,
        key: str,
        value: V,
        *,
        ttl: str | float = DEFAULT_TTL_S,
        tags: Iterable[str] = (),
        type: Any = None,
    ) -> None:
        """Write through: what this write block has stored is found in the cache once it has committed.

        Whatever has one of these tags, or this key, is forgotten as by `invalidate`. Where another
        transaction has changed them since, the value is not kept. It is shared with other processes as its
        `type`, by default its own class, says. Raises OutsideUnitOfWork outside of a write block.
        """
        unit = request.unit_of_work.get()
        if unit is None:
            raise OutsideUnitOfWork(f"put({key!r})")
        codec = None if self._shared is None else codec_of(type or value.__class__)
        wanted = self._wanted(key, tags, Life(seconds(ttl)), codec)
        self.invalidate(*names(key, tags))
        unit.after_commit(lambda position: self._put(wanted, value, position), certain=True)

    def _put(self, wanted: Wanted, value: Any, position: Position) -> None:
        if self.enabled:
            self._loads.keep(wanted, value, position)

    def held(self, key: str) -> Entry | None:
        """What this process has of it, if that is good."""
        entry = self.store.get(key)
        return entry if entry is not None and entry.alive() else None

    def renew(
        self,
        key: str,
        load: Callable[[], Awaitable[Any]],
        *,
        ttl: str | float = DEFAULT_TTL_S,
        tags: Iterable[str] = (),
        stale: str | float = 0.0,
        type: Any = None,
    ) -> None:
        """Load anew what this process has, before its time is over. Nobody waits: it is served meanwhile."""
        entry = self.held(key)
        if entry is not None and request.unit_of_work.get() is None:
            codec = None if self._shared is None else codec_of_load(load, type)
            self._loads.refresh(self._wanted(key, tags, life_of(ttl, stale), codec), load, entry)

    def cached(
        self,
        *,
        tags: Callable[..., Iterable[str]] | None = None,
        ttl: str | float = DEFAULT_TTL_S,
        stale: str | float = 0.0,
        missing: str | float | None = None,
        within: str | float | None = None,
    ) -> Callable[[Callable[P, Awaitable[V]]], Cached[P, V]]:
        """Decorate an async function: its results are cached by its arguments. `tags` gives those of a result
        from the same arguments; the rest is as in `get`."""

        def decorate(function: Callable[P, Awaitable[V]]) -> Cached[P, V]:
            of = returned(function)
            options = {"ttl": ttl, "stale": stale, "missing": missing, "within": within, "type": of}
            return Cached(self, function, tags, options)

        return decorate

    def changes(self, table: str, *, columns: Iterable[str] | None = None) -> Callable[[TagsOf], TagsOf]:
        """Decorate a function that gives tags of a row of this table; a table may have several.

        Where `cache.follow_changes` names the table, they are invalidated whenever such a row changes,
        whoever has changed it. The function gets each row as it was and as it is, by the names of columns:
        numbers, booleans and JSON as Python has them, everything else as the text in which PostgreSQL writes
        it. With `columns`, an update that leaves these as they were is none. When the function raises,
        everything is forgotten.
        """

        def decorate(function: TagsOf) -> TagsOf:
            self.declared.add(table, function, columns)
            return function

        return decorate

    async def once(self, key: str, load: Callable[[], Awaitable[V]]) -> V:
        """What `load` returns, which is called once a request for this key, whoever asks how often.

        For what is not worth keeping longer. After this request has invalidated anything it is called again.
        """
        scope = request.current.get()
        if scope is None or request.unit_of_work.get() is not None:
            return await load()
        if scope.local is None:
            scope.local = {}
        asked = scope.local.setdefault(ONCE, {})
        if key not in asked:
            asked[key] = asyncio.ensure_future(load())
            asked[key].add_done_callback(retrieve)
        value: V = await asyncio.shield(asked[key])
        return value

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

    def among(self, settings: endpoints.Cache) -> None:
        """Whether other processes run from now on. If none did, what is kept may be of a long life."""
        alone = not settings.several and settings.engine != "redis"
        if self._alone and not alone:
            self.clear()
        self._alone, self._unheard_s = alone, settings.unheard_s

    def _forget_unheard(self) -> None:
        if self._shared is not None and not self._shared.up:
            self.clear()

    def serve_sessions(self, yes: bool) -> None:
        """Whether sessions are served from now on. If they were not, what is kept may be too old for them."""
        if yes and not self._for_sessions:
            self.clear()
        self._for_sessions = yes

    def clear(self) -> None:
        """Forget everything, here; loads under way are not stored."""
        self._forget(list(self.tags.known), self._position())
        self.store.clear()

    def _came(self, state: str) -> None:
        if state == "back":
            self.limit.warm_up()
        elif state == "down":  # from now on this process hears of no change
            asyncio.get_running_loop().call_later(self._unheard_s, self._forget_unheard)

    def _failed_over(self, *_: object) -> None:
        """What was read of another primary may be lost: nobody can tell from an entry whether it is."""
        if self._shared is not None:
            self.invalidate(*self._shared.everything)

    async def use(self, shared: Shared | None) -> None:
        """From now on what all processes share, or nothing of that kind. What is kept here is forgotten."""
        before, self._shared, self._loads.shared = self._shared, None, None
        if before is not None:
            await before.close()
            self.tags.shares = False
        elif shared is not None:
            self._events.query_finished.subscribe(_observe, bind=lambda node, label: _observe)
            self._events.failed_over.subscribe(self._failed_over)
        if shared is not None:
            await shared.open()
        self.clear()
        self._shared = self._loads.shared = shared

    async def check(self) -> str:
        """For the deep health check. Raises Unavailable while what all processes share cannot be asked."""
        if self._shared is not None and self._shared.trouble:
            raise Unavailable(
                f"the shared cache: {self._shared.trouble}", hint="until then each process has its own"
            )
        return f"{len(self._entries)} entries" if self.enabled else "off"

    def figures(self) -> dict[str, int]:
        """How much it holds."""
        return {"entries": len(self._entries), "loads": len(self._loads.running)}

    def report(self) -> bytes:
        """The keys that are read most in this process, as JSON (hot.HotKey)."""
        return msgspec.json.encode(self.hot.hottest(REPORTED))

    def _wanted(self, key: str, tags: Iterable[str], life: Life, codec: Codec | None) -> Wanted:
        every = () if self._shared is None else self._shared.every(key)
        if not (self._alone or (self._shared is not None and self._shared.up)):
            life = life.within(self._unheard_s)
        return Wanted(key, names(key, tags, every), codec, life)

    async def _past(
        self, load: Callable[[], Awaitable[V]], key: str = "", within: str | float | None = None
    ) -> V:
        """For a session that passes the cache by: in its turn, unless it holds a transaction already."""
        if request.unit_of_work.get() is not None:
            return await load()
        loaded = self.limit.run(load)
        return await loaded if within is None else await _within(loaded, key, within)

    async def _current(self) -> bool:
        """Whether this session may be served from memory: nothing that it may have seen is unknown here."""
        scope = request.current.get()
        if self._shared is None or scope is None or not self._stands(scope.bookmark):
            return False
        return await self._shared.current(scope)

    def _forget(self, names: Iterable[str], position: Position) -> None:
        scope = request.current.get()
        if scope is not None and scope.local is not None:
            scope.local.pop(ONCE, None)
        self.tags.forget(names, position)
        for name in names:
            self.store.remove(name)
        self._events.cache_invalidated(tuple(names))


async def _within(loaded: Awaitable[V], key: str, limit: str | float) -> V:
    try:
        async with asyncio.timeout(seconds(limit)):
            return await loaded
    except TimeoutError as error:
        raise Unavailable(f"the load of {key!r} took longer than {limit}") from error


def _in_session() -> bool:
    scope = request.current.get()
    return scope is not None and scope.bookmark.session != 0


def _observe(*_: object) -> None:
    """A query may have shown something new to its session."""
    scope = request.current.get()
    if scope is not None:
        scope.observed += 1

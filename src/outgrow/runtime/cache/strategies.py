"""Strategies: how a value is read through the cache, and written. One is exchanged for another in a line.

                  get: what is not in the cache           put
    CacheAside    each caller loads it                    stores it, forgets the entry
    ReadThrough   one load, for all who wait              stores it, forgets the entry
    WriteThrough  one load, for all who wait              stores it, and has it in the cache
    RefreshAhead  as ReadThrough; and what is hot is      stores it, forgets the entry
                  renewed before its time is over
    WriteBehind   the buffer, else as ReadThrough         into a durable buffer, stored later (behind.py)

seen = ReadThrough(og, "seen", load, store=store, ttl="5m")

async def load(tx: Read, user: int) -> int: ...
async def store(tx: Write, values: Mapping[int, int]) -> None: ...

All are made of og.cache, and promise what that promises: see docs/caching-strategies.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from outgrow.errors import Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.cache.cache import DEFAULT_TTL_S, Cache
from outgrow.runtime.cache.codec import returned
from outgrow.runtime.cache.memory import Recent
from outgrow.runtime.cache.wanted import names, seconds

K = TypeVar("K")
V = TypeVar("V")

Load = Callable[[Any, K], Awaitable[V]]
"""The value of a key, read in the block that it gets: a read block, or the write block around the call."""

Store = Callable[[Any, Mapping[K, V]], Awaitable[None]]
"""Writes these values in the write block that it is given."""

HOT = 3
AHEAD = 0.2
COUNTED_MAX = 10_000


class Tiers(Protocol):
    """What a strategy needs of the Outgrow object."""

    @property
    def cache(self) -> Cache: ...
    @property
    def db(self) -> Any: ...


class Strategy(Generic[K, V]):
    """What all five have in common; in itself it is none of them.

    `prefix` is the first part of the keys in the cache, and says by what the values are counted. A key is
    anything whose `str` tells it from all others. `ttl`, `stale`, `missing`, `within` and `type` are those of
    `og.cache.get`; `tags` gives those of a key. `type` is by default what `load` is annotated to return.

    Inside a write block all of it is part of that transaction: `put` takes place if it commits.
    """

    def __init__(
        self,
        og: Tiers,
        prefix: str,
        load: Load[K, V],
        *,
        store: Store[K, V] | None = None,
        tags: Callable[[K], Iterable[str]] = lambda key: (),
        ttl: str | float = DEFAULT_TTL_S,
        stale: str | float = 0.0,
        missing: str | float | None = None,
        within: str | float | None = None,
        type: Any = None,
    ) -> None:
        self.prefix = prefix
        self._cache, self._db = og.cache, og.db
        self._of, self._to, self._tags = load, store, tags
        self._type = type if type is not None else returned(load)
        self._life: dict[str, Any] = {"ttl": ttl, "stale": stale}
        self._options = {**self._life, "missing": missing, "within": within, "type": self._type}

    async def get(self, key: K) -> V:
        """The value of `key`, from the cache or by `load`. Raises what `load` and cache.get raise."""
        value: V = await self._cache.get(
            self.name(key), partial(self._load, key), tags=self._tags(key), **self._options
        )
        return value

    async def put(self, key: K, value: V) -> None:
        """Store it: in the database when this returns. Raises what `store` raises, and Misuse without one."""
        unit: Any = request.unit_of_work.get()
        if unit is not None:
            await self._put(unit, key, value)
            return
        async with self._db.write() as tx:
            await self._put(tx, key, value)

    def drop(self, key: K) -> None:
        """Forget what is kept of `key`; inside a write block when it commits. The next `get` loads it."""
        self._cache.invalidate(self.name(key))

    def name(self, key: K) -> str:
        """The key in the cache. It is a tag, too."""
        return f"{self.prefix}:{key}"

    async def _load(self, key: K) -> V:
        unit = request.unit_of_work.get()
        if unit is not None:
            return await self._of(unit, key)
        async with self._db.read() as tx:
            return await self._of(tx, key)

    async def _put(self, tx: Any, key: K, value: V) -> None:
        await self._store(tx, {key: value})
        self._cache.invalidate(*names(self.name(key), self._tags(key)))

    async def _store(self, tx: Any, values: Mapping[K, V]) -> None:
        if self._to is None:
            raise Misuse(
                f"the strategy {self.prefix!r} has no store", hint="give it store=... to put something"
            )
        await self._to(tx, values)


class ReadThrough(Strategy[K, V]):
    """The cache loads what it does not have, once for all who wait for it. The one to begin with."""


class CacheAside(Strategy[K, V]):
    """The caller looks into the cache, and loads for itself what is not there.

    Nobody waits for another's load, and no load goes on when its caller has gone; many who miss at once load
    many times. `missing` and `within` do not apply.
    """

    async def get(self, key: K) -> V:
        """The value of `key`, from the cache or by a load of the caller's own. Raises what `load` raises."""

        async def look(missing: list[str]) -> dict[str, V]:
            return {name: await self._load(key)}

        name = self.name(key)
        found: dict[str, V] = await self._cache.get_many(
            [name], look, tags=lambda name: self._tags(key), type=self._type, **self._life
        )
        return found[name]


class WriteThrough(Strategy[K, V]):
    """What is put is in the database and in the cache, both when the transaction commits."""

    async def _put(self, tx: Any, key: K, value: V) -> None:
        await self._store(tx, {key: value})
        self._cache.put(self.name(key), value, ttl=self._life["ttl"], tags=self._tags(key), type=self._type)


class Uses:
    """How often one entry was used."""

    __slots__ = ("born", "count")

    def __init__(self, born: float) -> None:
        self.born = born
        self.count = 0


class RefreshAhead(Strategy[K, V]):
    """What is hot is loaded anew before its time is over, while it is served: nobody waits for it.

    Hot is what this process has served at least `hot` times since it got it. A hot one is renewed when it is
    used in the last part (`ahead`, a share of `ttl`) of its life; anything else ends, and costs nothing more.
    """

    def __init__(self, *args: Any, hot: int = HOT, ahead: float = AHEAD, **options: Any) -> None:
        super().__init__(*args, **options)
        if not 0 < ahead <= 0.5 or hot < 1:
            raise Misuse(
                f"hot={hot!r}, ahead={ahead!r}",
                hint="hot is 1 or more uses, ahead a share of ttl of at most 0.5",
            )
        self._hot, self._ahead_s = hot, ahead * seconds(self._life["ttl"])
        self._uses: Recent[str, Uses] = Recent(COUNTED_MAX)

    async def get(self, key: K) -> V:
        """As ReadThrough's."""
        value = await super().get(key)
        name = self.name(key)
        entry = self._cache.held(name)
        if entry is not None:
            uses = self._uses.get(name)
            if uses is None or uses.born != entry.born:
                uses = self._uses[name] = Uses(entry.born)
            uses.count += 1
            if uses.count >= self._hot and entry.expires - monotonic() < self._ahead_s:
                uses.count = 0
                self._cache.renew(
                    name, partial(self._load, key), tags=self._tags(key), type=self._type, **self._life
                )
        return value

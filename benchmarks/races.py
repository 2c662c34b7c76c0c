"""Ways to keep what was read, for stale_set.py: each as its manual has it, and `og.cache`."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Position
from tests.support.cache import Block, CacheServer, Data, Process

TTL_S = 60

Load = Callable[[], Awaitable[int]]


class Source:
    """A database: a number for each key, which a commit raises. A load may be held after it has read."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        self._held: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
        self.end = 1
        self.end_shown: dict[str, int] = {}

    def newest(self, key: str) -> int:
        """What the primary has."""
        return self._newest.get(key, 0)

    def commit(self, key: str, *, shown: bool = True) -> None:
        """Change it; a replica that is late does not show it yet."""
        self.end_shown[key] = self.end
        self.end += 1
        self._newest[key] = self.newest(key) + 1
        if shown:
            self.catch_up(key)

    def catch_up(self, key: str) -> None:
        """The replica shows it."""
        self._shown[key] = self.newest(key)
        self.end_shown.pop(key, None)

    def hold(self, key: str) -> None:
        """The next load is slow: it has read, and does not return yet."""
        self._held[key] = asyncio.Event(), asyncio.Event()

    async def has_read(self, key: str) -> None:
        """Until the slow one has read."""
        await self._held[key][0].wait()

    def let_go(self, key: str) -> None:
        """The slow one returns."""
        self._held.pop(key)[1].set()

    async def load(self, key: str) -> int:
        """What a query shows."""
        seen = self._shown.get(key, 0)
        loading = request.loading.get()
        if loading is not None:  # what og.db tells of the node that it has read from
            loading.read_at(Position(1, self.end_shown.get(key, self.end)))
        held = self._held.get(key)
        if held is not None and not held[0].is_set():
            held[0].set()
            await held[1].wait()
        return seen


class Way(Protocol):
    """Two processes that read and invalidate."""

    name: str
    invalidated_by: str

    async def open(self, source: Source) -> None: ...
    async def close(self) -> None: ...
    async def read(self, process: int, key: str) -> int: ...
    async def invalidate(self, process: int, key: str) -> None: ...


class Ours:
    """`og.cache` of two processes, with the block that a transaction opens."""

    name, invalidated_by = "**`og.cache`**", "`invalidate` in the transaction"

    def __init__(self, server: CacheServer) -> None:
        self._server = server

    async def open(self, source: Source) -> None:
        self._source, data = source, Data()
        self._processes = [Process(data, self._server) for _ in range(2)]
        for process in self._processes:
            await process.open()

    async def close(self) -> None:
        for process in self._processes:
            await process.close()

    async def read(self, process: int, key: str) -> int:
        async def load() -> int:
            return await self._source.load(key)

        self._processes[process].known = Position(1, self._source.end)
        return await self._processes[process].cache.get(key, load, ttl=TTL_S)

    async def invalidate(self, process: int, key: str) -> None:
        """Announced before the commit, as og.db does it, and settled after it."""
        writer, block = self._processes[process], Block()
        token = request.unit_of_work.set(block)
        writer.cache.invalidate(key)
        request.unit_of_work.reset(token)
        await block.announcer.announce(block.tags)
        position = Position(1, self._source.end)
        writer.data.end = writer.known.offset
        writer.known = position
        block.announcer.settle(block.tags, position)
        block.take_effect(position)


class Cashews:
    """Two of its caches over one Redis."""

    def __init__(self, url: str, mode: str, how: dict[str, Any], *, tags: bool = False, **setup: Any) -> None:
        self.name, self.invalidated_by = f"cashews, {mode}", "`delete_tags`" if tags else "`delete`"
        self._url, self._how, self._tags, self._setup = url, how, tags, setup

    async def open(self, source: Source) -> None:
        self._caches = [import_module("cashews").Cache() for _ in range(2)]
        for cache in self._caches:
            cache.setup(self._url, **self._setup)
            await cache.init()
            await cache.clear()
        how = {"ttl": TTL_S, "key": "{key}", **self._how}
        decorate = how.pop("with", "__call__")
        if self._tags:
            how["tags"] = ["tag:{key}"]

        async def load(key: str) -> int:
            return await source.load(key)

        self._reads = [getattr(cache, decorate)(**how)(load) for cache in self._caches]

    async def close(self) -> None:
        for cache in self._caches:
            await cache.close()

    async def read(self, process: int, key: str) -> int:
        found: int = await self._reads[process](key)
        return found

    async def invalidate(self, process: int, key: str) -> None:
        cache = self._caches[process]
        await (cache.delete_tags(f"tag:{key}") if self._tags else cache.delete(key))


class Aiocache:
    """Its decorators, over one Redis."""

    invalidated_by = "`delete`"

    def __init__(self, port: int, decorator: str) -> None:
        self.name, self._port, self._decorator = f"aiocache, `@{decorator}`", port, decorator

    async def open(self, source: Source) -> None:
        aiocache, serializers = import_module("aiocache"), import_module("aiocache.serializers")
        where = {"endpoint": "127.0.0.1", "port": self._port, "serializer": serializers.JsonSerializer()}
        self._caches = [aiocache.RedisCache(**where) for _ in range(2)]

        async def load(key: str) -> int:
            return await source.load(key)

        made = getattr(aiocache, self._decorator)
        builder = lambda function, key: f"aio:{key}"  # noqa: E731
        self._reads = [
            made(ttl=TTL_S, key_builder=builder, cache=aiocache.RedisCache, **where)(load) for _ in range(2)
        ]

    async def close(self) -> None:
        for cache in (*self._caches, *(read.cache for read in self._reads)):
            await cache.close()

    async def read(self, process: int, key: str) -> int:
        found: int = await self._reads[process](key)
        return found

    async def invalidate(self, process: int, key: str) -> None:
        await self._caches[process].delete(f"aio:{key}")


class Threaded:
    """One that blocks, in threads: its load waits for the source in the loop."""

    name: str
    invalidated_by: str

    async def open(self, source: Source) -> None:
        self._source, self._loop = source, asyncio.get_running_loop()
        await asyncio.to_thread(self.begin)

    async def close(self) -> None:
        await asyncio.to_thread(self.end)

    async def read(self, process: int, key: str) -> int:
        return await asyncio.to_thread(self.get, process, key)

    async def invalidate(self, process: int, key: str) -> None:
        await asyncio.to_thread(self.forget, process, key)

    def load(self, key: str) -> int:
        """What a query shows."""
        return asyncio.run_coroutine_threadsafe(self._source.load(key), self._loop).result()

    def begin(self) -> None: ...
    def end(self) -> None: ...
    def get(self, process: int, key: str) -> int: ...  # type: ignore[empty-body]
    def forget(self, process: int, key: str) -> None: ...


class Dogpile(Threaded):
    """Two regions over one Redis."""

    def __init__(self, port: int, how: str) -> None:
        self.name, self._port, self._how = "dogpile.cache, `get_or_create`", port, how
        self.invalidated_by = f"`{how}`"

    def begin(self) -> None:
        region = import_module("dogpile.cache").make_region
        where = {
            "host": "127.0.0.1",
            "port": self._port,
            "distributed_lock": True,
            "thread_local_lock": False,
        }
        self._regions = [
            region().configure("dogpile.cache.redis", expiration_time=TTL_S, arguments=where)
            for _ in range(2)
        ]

    def get(self, process: int, key: str) -> int:
        found: int = self._regions[process].get_or_create(f"dog:{key}", lambda: self.load(key))
        return found

    def forget(self, process: int, key: str) -> None:
        if self._how == "delete":
            self._regions[process].delete(f"dog:{key}")
        else:
            self._regions[process].invalidate(hard=self._how == "invalidate(hard=True)")


class Diskcache(Threaded):
    """Two of its caches over one folder."""

    name, invalidated_by = "diskcache, `memoize`", "`delete`"

    def begin(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="outgrow-race-")
        self._caches = [import_module("diskcache").Cache(self._folder) for _ in range(2)]
        self._reads = [cache.memoize(expire=TTL_S, name="race")(self.load) for cache in self._caches]

    def end(self) -> None:
        for cache in self._caches:
            cache.close()
        shutil.rmtree(self._folder)

    def get(self, process: int, key: str) -> int:
        found: int = self._reads[process](key)
        return found

    def forget(self, process: int, key: str) -> None:
        self._caches[process].delete(self._reads[process].__cache_key__(key))


class Cachetools(Threaded):
    """In one process."""

    name, invalidated_by = "cachetools, `cached` (one process)", "`pop`"

    def begin(self) -> None:
        cachetools = import_module("cachetools")
        self._cache, self._lock = cachetools.TTLCache(10_000, TTL_S), threading.Lock()
        self._read = cachetools.cached(self._cache, lock=self._lock)(self.load)
        self._key = import_module("cachetools.keys").hashkey

    def get(self, process: int, key: str) -> int:
        found: int = self._read(key)
        return found

    def forget(self, process: int, key: str) -> None:
        with self._lock:
            self._cache.pop(self._key(key), None)


class AsyncLru:
    """In one process."""

    name, invalidated_by = "async-lru (one process)", "`cache_invalidate`"

    async def open(self, source: Source) -> None:
        async def load(key: str) -> int:
            return await source.load(key)

        self._read = import_module("async_lru").alru_cache(maxsize=10_000, ttl=TTL_S)(load)

    async def close(self) -> None:
        await self._read.cache_close()

    async def read(self, process: int, key: str) -> int:
        found: int = await self._read(key)
        return found

    async def invalidate(self, process: int, key: str) -> None:
        self._read.cache_invalidate(key)


class ByHand:
    """What most write: GET, on a miss load and SET; DEL after the commit."""

    name, invalidated_by = "redis-py, by hand", "`DEL`"

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self, source: Source) -> None:
        self._source = source
        self._clients = [import_module("redis.asyncio").Redis.from_url(self._url) for _ in range(2)]

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    async def read(self, process: int, key: str) -> int:
        client = self._clients[process]
        kept = await client.get(f"hand:{key}")
        if kept is not None:
            return int(kept)
        value = await self._source.load(key)
        await client.set(f"hand:{key}", value, ex=TTL_S)
        return value

    async def invalidate(self, process: int, key: str) -> None:
        await self._clients[process].delete(f"hand:{key}")


def ways(server: CacheServer, url: str) -> Iterator[Way]:
    """Those that are installed."""
    yield Ours(server)
    yield ByHand(url)
    if find_spec("cashews"):
        yield Cashews(url, "`@cache`", {})
        yield Cashews(url, "`lock=True`", {"lock": True})
        yield Cashews(url, "tags", {}, tags=True)
        yield Cashews(url, "early", {"with": "early", "early_ttl": TTL_S // 2}, tags=True)
        yield Cashews(url, "soft", {"with": "soft", "soft_ttl": TTL_S // 2}, tags=True)
        yield Cashews(url, "hit", {"with": "hit", "cache_hits": 1000}, tags=True)
        yield Cashews(url, "client-side", {}, client_side=True)
    if find_spec("aiocache"):
        yield Aiocache(server.port, "cached")
        yield Aiocache(server.port, "cached_stampede")
    if find_spec("dogpile"):
        for how in ("delete", "invalidate(hard=True)", "invalidate(hard=False)"):
            yield Dogpile(server.port, how)
    if find_spec("diskcache"):
        yield Diskcache()
    if find_spec("cachetools"):
        yield Cachetools()
    if find_spec("async_lru"):
        yield AsyncLru()

"""The cache of each process behind one that all share, live (stage 6); and back.

store ─► front ─► switch ─► settle
Redis      │        │         outgrow.toml; Redis ends when nobody asks it any more
           │        └ every process uses the other cache; then the shared one is emptied
           └ servers, balancer, the address

Nothing is carried: a cache may be empty. What must not be is an old value that stays. While one process
still has its cache in memory, the others do not hear of what is written there. So when the last process has
come, the shared cache is emptied, and with it what the first ones have of it in their memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec.structs import replace

from outgrow.cluster.control import Request
from outgrow.cluster.plan import capped
from outgrow.engines.redis import cache as redis_cache
from outgrow.engines.redis.cache import RedisCache
from outgrow.errors import FleetNotRunning
from outgrow.growth import settings
from outgrow.growth.moves.change_of_front import become
from outgrow.growth.publishing import change, patiently, until_obeyed
from outgrow.growth.step import DECISIVE_EPOCH, Context, Step
from outgrow.topology import Topology


class MoveCache:
    """Between "memory" or "off" and the fleet's own Redis."""

    name: ClassVar[str] = "move-cache"
    says: ClassVar[str] = "has all processes share one cache, or none"

    def fits(self, before: Topology, after: Topology) -> bool:
        """Between stages that share one database and one store of sessions."""
        same = before.database == after.database and before.sessions == after.sessions
        own = before.cache.url is None and after.cache.url is None
        moves = (before.cache.engine == "redis") != (after.cache.engine == "redis")
        return same and own and moves and after.database.engine == "postgres"

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        return (
            Step("store", "have the shared cache ready", self.start, undo=self.stop, lasting=True),
            Step("front", "servers, balancer, the address", self.front, undo=self.front_back, lasting=True),
            Step("switch", "every process changes over", self.switch, undo=self.back, lasting=True),
            Step("settle", "write outgrow.toml, end what is left", self.settle),
        )

    async def start(self, context: Context) -> None:
        """Redis, when it is to be used."""
        if "host" not in context.kept:
            context.keep({"host": _host(context)})
        if context.after.cache.engine != "redis":
            return
        context.state.keep_secrets(context.after)
        whole = [each for server in _servers(context) for each in server.workloads()]
        workloads = tuple(capped(each, context.after) for each in whole)
        await change(context, Request("start", workloads=workloads))

    async def stop(self, context: Context) -> None:
        """It was not needed."""
        if context.after.cache.engine == "redis":
            await _end(context, context.after)

    async def front(self, context: Context) -> None:
        """What stands before the database becomes the topology after."""
        await become(context, context.after)

    async def front_back(self, context: Context) -> None:
        """And the topology before."""
        await become(context, context.before)

    async def switch(self, context: Context) -> None:
        """All of them, or the move is taken back."""
        await _use(context, context.after)

    async def back(self, context: Context) -> None:
        """As it was."""
        await _use(context, context.before)

    async def settle(self, context: Context) -> None:
        """What `outgrow up` starts from now on. The decisive step: what ends here is not begun again."""
        published = context.state.published()
        assert published is not None
        if not context.decided:
            context.keep({DECISIVE_EPOCH: published.epoch})
        settings.settle(context.directory, context.after)
        await change(context, Request("adopt", topology=context.after))
        if context.before.cache.engine == "redis":
            await _end(context, context.before)


def _servers(context: Context) -> list[RedisCache]:
    with_it = context.after if context.after.cache.engine == "redis" else context.before
    return redis_cache.servers(with_it, context.state.placement(str(context.kept["host"])))


def _host(context: Context) -> str:
    """Where it is, or is to be."""
    published = context.state.published()
    if published is not None and published.cache.url is not None:
        return str(urlsplit(published.cache.url).hostname)
    return context.state.free_host(*redis_cache.needs(context.after))


async def _use(context: Context, topology: Topology) -> None:
    """Have every process do so. Raises FleetError when one does not."""
    published = context.state.published()
    assert published is not None
    engine = topology.cache.engine or "memory"
    # Where it is published to be, since another start of the fleet may have moved it; else as begun.
    urls = published.cache.urls or tuple(each.url for each in _servers(context)) if engine == "redis" else ()
    cache = replace(published.cache, engine=engine, url=next(iter(urls), None), more_urls=urls[1:])
    await change(context, Request("cache", cache=cache))
    await until_obeyed(context)
    for url in urls:
        await patiently(partial(asyncio.to_thread, redis_cache.empty, url, context.state.placement()))


async def _end(context: Context, topology: Topology) -> None:
    with contextlib.suppress(FleetNotRunning):
        await change(context, Request("remove", names=tuple(redis_cache.names(topology))))

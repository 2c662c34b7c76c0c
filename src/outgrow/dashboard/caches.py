"""The caches of a running fleet for a command that looks once: every process's, and the one they share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from outgrow import cluster, endpoints
from outgrow.advisor import caches, keys, measures
from outgrow.advisor.caches import Reads
from outgrow.advisor.keys import Key
from outgrow.advisor.measures import Figures
from outgrow.cluster.state import State
from outgrow.dashboard.http import Client
from outgrow.engines import Placement
from outgrow.engines.redis import cache as redis_cache
from outgrow.errors import OutgrowError

WITHIN_S = 5.0
KEYS_SHOWN = 10


class Process(msgspec.Struct, frozen=True):
    """Entries in one process, about how many bytes they take, and how many had to go; None when it tells
    nothing: no middleware, metrics off, or no answer."""

    node: str
    entries: int | None
    bytes: int | None = None
    evicted: int | None = None


class Server(msgspec.Struct, frozen=True):
    """The fleet's Redis of the cache, all nodes: bytes, keys, keys that had to go; or the trouble with it."""

    memory: int | None = None
    memory_max: int | None = None
    keys: int | None = None
    evicted: int | None = None
    trouble: str | None = None


class Caches(msgspec.Struct, frozen=True):
    """All of it. `engine` is that of [cache]; without a Redis that the fleet runs there is no `server`.
    `keys` are those that are read most now."""

    engine: str
    whole: Reads
    prefixes: list[Reads]
    processes: list[Process]
    server: Server | None
    keys: list[Key] = []


async def look(directory: Path) -> Caches:
    """Ask them all at once. Raises FleetNotRunning or FleetError."""
    status = await cluster.status(directory, measured=False)
    place = State(directory).placement()
    settings = endpoints.read(place.endpoints).cache
    nodes = [node for node in status.nodes if node.tier == "application" and node.own]
    told = await asyncio.gather(*(_told(str(node.own)) for node in nodes))
    known = [figures for figures, _ in told if figures is not None]
    server = None
    if settings.url is not None and any(node.name == redis_cache.NAME for node in status.nodes):
        server = await asyncio.to_thread(_server, settings.urls, place)
    return Caches(
        settings.engine,
        caches.whole(known),
        caches.prefixes(known),
        [_process(node.name, figures) for node, (figures, _) in zip(nodes, told, strict=True)],
        server,
        keys.hottest((hot for _, hot in told), KEYS_SHOWN),
    )


async def _told(address: str) -> tuple[Figures | None, list[keys.Told]]:
    host, _, port = address.rpartition(":")
    client = Client(host, int(port))
    try:
        async with asyncio.timeout(WITHIN_S):
            status, body = await client.get("/metrics", "application/json")
            if status != 200:
                return None, []
            figures = measures.read(body)
            status, body = await client.get("/metrics/keys")
        return figures, keys.read(body) if status == 200 else []
    except (OSError, msgspec.DecodeError):
        return None, []
    finally:
        client.close()


def _process(node: str, figures: Figures | None) -> Process:
    if figures is None:
        return Process(node, None)
    names = ("entries", "bytes", "evicted_total")
    return Process(node, *(int(measures.single(figures, f"outgrow_cache_{name}")) for name in names))


def _server(urls: Sequence[str], place: Placement) -> Server:
    try:
        return Server(*redis_cache.together(urls, place))
    except OutgrowError as error:
        return Server(trouble=error.message)

"""The caches of a running fleet for a command that looks once: every process's, and the one they share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from outgrow import cluster, endpoints
from outgrow.advisor import caches, measures
from outgrow.advisor.caches import Reads
from outgrow.advisor.measures import Figures
from outgrow.cluster.state import State
from outgrow.dashboard.http import Client
from outgrow.engines import Placement
from outgrow.engines.redis import cache as redis_cache
from outgrow.errors import OutgrowError

WITHIN_S = 5.0


class Process(msgspec.Struct, frozen=True):
    """Entries in one process; None when it tells nothing: no middleware, metrics off, or no answer."""

    node: str
    entries: int | None


class Server(msgspec.Struct, frozen=True):
    """The fleet's Redis of the cache: bytes, keys, keys that had to go; or the trouble with asking it."""

    memory: int | None = None
    memory_max: int | None = None
    keys: int | None = None
    evicted: int | None = None
    trouble: str | None = None


class Caches(msgspec.Struct, frozen=True):
    """All of it. `engine` is that of [cache]; without a Redis that the fleet runs there is no `server`."""

    engine: str
    whole: Reads
    prefixes: list[Reads]
    processes: list[Process]
    server: Server | None


async def look(directory: Path) -> Caches:
    """Ask them all at once. Raises FleetNotRunning or FleetError."""
    status = await cluster.status(directory, measured=False)
    place = State(directory).placement()
    settings = endpoints.read(place.endpoints).cache
    nodes = [node for node in status.nodes if node.tier == "application" and node.own]
    told = await asyncio.gather(*(_figures(str(node.own)) for node in nodes))
    known = [figures for figures in told if figures is not None]
    server = None
    if settings.url is not None and any(node.name == redis_cache.NAME for node in status.nodes):
        server = await asyncio.to_thread(_server, settings.url, place)
    return Caches(
        settings.engine,
        caches.whole(known),
        caches.prefixes(known),
        [Process(node.name, _entries(figures)) for node, figures in zip(nodes, told, strict=True)],
        server,
    )


async def _figures(address: str) -> Figures | None:
    host, _, port = address.rpartition(":")
    client = Client(host, int(port))
    try:
        async with asyncio.timeout(WITHIN_S):
            status, body = await client.get("/metrics", "application/json")
        return measures.read(body) if status == 200 else None
    except (OSError, msgspec.DecodeError):
        return None
    finally:
        client.close()


def _entries(figures: Figures | None) -> int | None:
    return None if figures is None else int(measures.single(figures, "outgrow_cache_entries"))


def _server(url: str, place: Placement) -> Server:
    try:
        return Server(*redis_cache.figures(url, place))
    except OutgrowError as error:
        return Server(trouble=error.message)

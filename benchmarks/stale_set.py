"""Does an old value stay? `python -m benchmarks stale_set [--quick] [--write]`.

    a slow reader   reads the old value ──────────────────────────────► stores it
    a writer                   commits the new one ─► invalidates the key
    a late replica             the same, but for a reader who begins after it and reads the old value there

Then, when all is over, somebody asks: the old value until its time is over, or the new? Each way of caching
as its manual has it, in two processes over one Redis where it has such a mode (each with a client and a
memory of its own), in one process where it lives in that.

The peers are in no lock file: `uv pip install -r benchmarks/peers.txt`. One that is not there is left out.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version

import uvloop

from benchmarks import report
from benchmarks.races import Source, Way, ways
from outgrow.runtime.cache import shared
from tests.support.cache import HOST, CacheServer

TIMES, QUICK = 50, 5
PEERS = ("cashews", "aiocache", "dogpile.cache", "diskcache", "cachetools", "async-lru", "redis")


def run(*, quick: bool) -> str:
    """The table, as Markdown."""
    shared.GRACE_S = 0.0  # everybody is connected, as is waited for
    return uvloop.run(_all(QUICK if quick else TIMES))


async def _all(times: int) -> str:
    server = CacheServer()
    server.start()
    try:
        await asyncio.to_thread(_open_to_all, server)
        rows = []
        for way in ways(server, f"redis://{HOST}:{server.port}"):
            with server.client as client:
                client.flushdb()  # the last one's keys have the same names
            stayed = [f"{each} of {times}" for each in await _tried(way, times)]
            rows.append([way.name, way.invalidated_by, *stayed])
            print("  ", " | ".join(rows[-1]), flush=True)
    finally:
        server.stop()
    head = ["", "invalidated by", "a slow reader", "a late replica"]
    return f"{_table(head, rows)}\n\n{_versions()}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return report.table(head, rows).replace("| --- | ---: |", "| --- | --- |", 1)


def _open_to_all(server: CacheServer) -> None:
    """The peers connect without an account; it listens on this machine alone, and only for this."""
    with server.client as client:
        while True:
            try:
                client.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
                return
            except (ConnectionError, OSError):
                continue


async def _tried(way: Way, times: int) -> list[int]:
    """How often the old value stayed, in either race."""
    counts = []
    for race in (_slow_reader, _late_replica):
        stale = 0
        source = Source()
        await way.open(source)
        try:
            for number in range(times):
                stale += await race(way, source, f"{race.__name__}:{number}")
        finally:
            await way.close()
        counts.append(stale)
    return counts


async def _slow_reader(way: Way, source: Source, key: str) -> bool:
    source.hold(key)
    reading = asyncio.ensure_future(way.read(0, key))
    await source.has_read(key)
    source.commit(key)
    await way.invalidate(1, key)
    source.let_go(key)
    await reading
    await asyncio.sleep(0.005)
    return await way.read(0, key) < source.newest(key) or await way.read(1, key) < source.newest(key)


async def _late_replica(way: Way, source: Source, key: str) -> bool:
    await way.read(0, key)
    source.commit(key, shown=False)
    await way.invalidate(1, key)
    await asyncio.sleep(0.005)
    await way.read(0, key)
    source.catch_up(key)
    await asyncio.sleep(0.005)
    return await way.read(0, key) < source.newest(key) or await way.read(1, key) < source.newest(key)


def _versions() -> str:
    found, missing = [], []
    for name in PEERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    absent = f"; not installed: {', '.join(missing)}" if missing else ""
    return f"Peers: {', '.join(found)}{absent}."

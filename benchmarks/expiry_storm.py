"""What expires under its readers: `python -m benchmarks expiry_storm [--quick] [--write]`.

10,000 keys are read as Zipf's law says (1.0) in four processes, after all of them were loaded at the same
moment, so that they expire together. The loader takes 50 ms. Read by the cache with and without `stale=`,
and, as what most applications have, from a dictionary that all share: who finds nothing good, loads.
The load arrives whether the last read has ended or not; a read's time is from when it should have begun.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import uvloop

from benchmarks import report
from benchmarks.client import percentile
from outgrow.runtime.cache import shared
from outgrow.runtime.serve import FULL_COLLECTION_AFTER, GC_THRESHOLD, MIDDLE_COLLECTION_AFTER
from tests.support.cache import CacheServer, Data, Process

KEYS = 10_000
PROCESSES = 4
RATE = 2_000
LOAD_S = 0.05
TTL_S = 10.0
STALE_S = 60.0
TTLS = 3
WARMING = 2_000
"""Keys that are loaded at once before the clock runs: so many a call."""

Read = Callable[[int, str], Awaitable[object]]


class Found(NamedTuple):
    """`loads` of one way, `least` by somebody who knows what comes, and all reads' milliseconds, sorted."""

    loads: int
    least: int
    times: list[float]


class Loader:
    """Says when it was asked for what."""

    def __init__(self) -> None:
        self.began: list[tuple[float, str]] = []

    def of(self, key: str) -> Callable[[], Awaitable[int]]:
        async def load() -> int:
            self.began.append((time.monotonic(), key))
            await asyncio.sleep(LOAD_S)
            return len(self.began)

        return load


def run(*, quick: bool) -> str:
    """The table, as Markdown."""
    shared.GRACE_S = 0.0  # everybody is connected, as is waited for
    # As in the servers: what is cached is not to be looked through again and again by the collector.
    before = gc.get_threshold()
    gc.set_threshold(GC_THRESHOLD, MIDDLE_COLLECTION_AFTER, FULL_COLLECTION_AFTER)
    try:
        return uvloop.run(_all(2 if quick else TTLS))
    finally:
        gc.set_threshold(*before)


async def _all(ttls: int) -> str:
    chance = random.Random(1)
    arrivals = _arrivals(chance, ttls * TTL_S)
    rows, found = [], {}
    for name, way in (
        ("a dictionary with times, no more", _by_hand),
        ("`og.cache.get`", _plain),
        ('`og.cache.get(stale="1m")`', _stale),
    ):
        found[name] = each = await way(arrivals)
        shares = [percentile(each.times, share) for share in (0.5, 0.99, 0.999)]
        rows.append(
            [name, *[f"{ms:.2f}" for ms in shares], f"{each.loads:,}", f"{each.loads / each.least:.2f}"]
        )
    head = [f"{len(arrivals):,} reads", "p50 ms", "p99 ms", "p99.9 ms", "loads", "loads per key and TTL"]
    served = found['`og.cache.get(stale="1m")`']
    return "\n".join([
        report.table(head, rows),
        "",
        report.verdict("p99 with `stale=`, the loader taking 50 ms", percentile(served.times, 0.99), 50,
                       at_least=False, unit=" ms"),
        report.verdict("loads per key and TTL", served.loads / served.least, 1.1, at_least=False),
    ])  # fmt: skip


def _arrivals(chance: random.Random, seconds: float) -> list[tuple[float, int, str]]:
    """When, in which process, which key."""
    weights = list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    made, at = [], 0.0
    while at < seconds:
        at += chance.expovariate(RATE)
        [key] = chance.choices(range(KEYS), cum_weights=weights)
        made.append((at, chance.randrange(PROCESSES), f"k:{key}"))
    return made


async def _plain(arrivals: Sequence[tuple[float, int, str]]) -> Found:
    return await _by_cache(arrivals, 0.0)


async def _stale(arrivals: Sequence[tuple[float, int, str]]) -> Found:
    return await _by_cache(arrivals, STALE_S)


async def _by_cache(arrivals: Sequence[tuple[float, int, str]], stale: float) -> Found:
    server, loader = CacheServer(), Loader()
    server.start()
    try:
        data = Data()
        processes = [Process(data, server, entries_max=KEYS * 2) for _ in range(PROCESSES)]
        await asyncio.gather(*(process.open() for process in processes))

        async def read(process: int, key: str) -> object:
            return await processes[process].cache.get(key, loader.of(key), ttl=TTL_S, stale=stale)

        async def everything(keys: list[str]) -> dict[str, int]:
            return dict.fromkeys(keys, 0)

        keys = [f"k:{key}" for key in range(KEYS)]
        for first in range(0, KEYS, WARMING):
            some = keys[first : first + WARMING]
            await processes[0].cache.get_many(some, everything, ttl=TTL_S, stale=stale)
        await processes[0].shared.barrier()
        found = await _measured(arrivals, read, loader)
        await asyncio.gather(*(process.close() for process in processes))
        return found
    finally:
        server.stop()


async def _by_hand(arrivals: Sequence[tuple[float, int, str]]) -> Found:
    loader, kept = Loader(), {f"k:{key}": (time.monotonic() + TTL_S, 0) for key in range(KEYS)}

    async def read(process: int, key: str) -> object:
        entry = kept[key]
        if entry[0] > time.monotonic():
            return entry[1]
        value = await loader.of(key)()
        kept[key] = time.monotonic() + TTL_S, value
        return value

    return await _measured(arrivals, read, loader)


async def _measured(arrivals: Sequence[tuple[float, int, str]], read: Read, loader: Loader) -> Found:
    times: list[float] = []

    async def one(due: float, process: int, key: str) -> None:
        await read(process, key)
        times.append((time.monotonic() - due) * 1000)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for at, process, key in arrivals:
            due = began + at
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            group.create_task(one(due, process, key))
    return Found(len(loader.began), _least(arrivals), sorted(times))


def _least(arrivals: Sequence[tuple[float, int, str]]) -> int:
    """Loads of one who loads a key for all once its time is over and somebody reads it, in no time."""
    loaded: dict[str, float] = {}
    count = 0
    for at, _, key in arrivals:
        if at >= loaded.get(key, 0.0) + TTL_S:
            loaded[key] = at
            count += 1
    return count

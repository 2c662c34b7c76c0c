"""What is done for hot keys: `python -m benchmarks hot_key [--quick] [--write]`.

One key is read 500 times a second in one process; its load takes 50 ms, and it lives for two seconds. How
many of its readers wait for a load, while its next load begins as early as one reader would draw it, and as
early as the first of so many does? Then others are read once, a hundred to each read of ten hot keys, in a
memory for a thousand entries: how many reads of the hot ones find nothing there, if some are kept and if not?
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import uvloop

from benchmarks import report
from outgrow import endpoints
from outgrow.runtime.bookmark import ZERO
from outgrow.runtime.cache import Cache, hot
from outgrow.runtime.events import Events

RATE, LOAD_S, TTL_S, SECONDS = 500, 0.05, 2.0, 60.0
ENTRIES, HOT, OTHERS, ROUNDS = 1000, 10, 100, 3000


class Counted(Cache):
    """One that counts how reads of hot keys end."""

    def __init__(self, settings: endpoints.Cache) -> None:
        events = Events()
        super().__init__(settings, events, position=lambda: ZERO)
        self.outcomes: dict[str, int] = {}
        events.cache_read.subscribe(self._count)

    def _count(self, prefix: str, outcome: str) -> None:
        if prefix == "hot":
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def share(self, *outcomes: str) -> float:
        """Of all reads of hot keys."""
        return sum(self.outcomes.get(each, 0) for each in outcomes) / max(1, sum(self.outcomes.values()))


def run(*, quick: bool) -> str:
    """The tables, as Markdown."""
    waited = uvloop.run(_expiry(8.0 if quick else SECONDS))
    rows = [
        [f'`eviction = "{kind}"`', *(f"{share:.2%}" for share in uvloop.run(_pushed_out(kind, quick=quick)))]
        for kind in ("random", "fifo", "lru", "lfu")
    ]
    return "\n".join(
        [
            report.table(
                [f"{RATE} reads a second of one key, a load of 50 ms every {TTL_S:g} s", "readers who wait"],
                [["its next load as early as one reader draws it", f"{waited[0]:.2%}"],
                 ["as early as the first of its readers would", f"{waited[1]:.2%}"]],
            ),
            "",
            report.table(["reads of hot keys that find nothing in memory", "as others", "kept"], rows),
        ]
    )  # fmt: skip


async def _expiry(seconds: float) -> tuple[float, float]:
    """Both at the same time, so that the machine is as busy for one as for the other."""
    as_one, as_many = Counted(endpoints.Cache()), Counted(endpoints.Cache())
    as_one.hot.readers = lambda key, seconds: 1.0  # type: ignore[method-assign]

    async def load() -> int:
        await asyncio.sleep(LOAD_S)
        return 1

    ends, counts_from = time.monotonic() + seconds, time.monotonic() + 2 * TTL_S
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < ends:
            for cache in (as_one, as_many):
                if time.monotonic() < counts_from:
                    cache.outcomes.clear()  # nobody knows yet that it is hot
                group.create_task(cache.get("hot:key", load, ttl=TTL_S))
            await asyncio.sleep(1 / RATE)
    return as_one.share("miss", "waited"), as_many.share("miss", "waited")


async def _pushed_out(kind: Literal["lru", "lfu", "fifo", "random"], *, quick: bool) -> tuple[float, float]:
    found = []
    for kept in (0, hot.KEPT_MAX):
        cache = Counted(endpoints.Cache(entries_max=ENTRIES, eviction=kind))
        cache.hot._kept_max = kept  # noqa: SLF001 - there is no setting for it

        async def load() -> int:
            return 1

        for turn in range(ROUNDS // (10 if quick else 1)):
            for key in range(HOT):
                await cache.get(f"hot:{key}", load)
            for other in range(OTHERS):
                await cache.get(f"once:{turn}.{other}", load)
        found.append(cache.share("miss"))
    return found[0], found[1]

"""The five caching strategies side by side: what a read and a write cost, and when others see what was put.

One process, 32 callers at once, 1,000 numbers asked for by Zipf(1.0). A load is one SELECT and 5 ms of other
work; what is kept lives for 0.3 s. The strategies take turns, over databases that write to the disk.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import uvloop

from benchmarks import report
from benchmarks.client import percentile
from outgrow import CacheAside, Outgrow, ReadThrough, RefreshAhead, WriteBehind, WriteThrough
from outgrow.runtime.database.migrate import migrate
from tests.support.behind import CREATE, GET, STORE, outgrow
from tests.support.postgres import PostgresServer

FIVE: tuple[type[Any], ...] = (CacheAside, ReadThrough, WriteThrough, RefreshAhead, WriteBehind)
KEYS = 1_000
CALLERS = 32
LOAD_S = 0.005
TTL_S = 0.3
ROUNDS = 5
TURN_S = 1.0
HOTTEST = 10
SAMPLED = 0.02
"""Of the puts: when a query of somebody else shows them is looked for."""


class Mix(NamedTuple):
    """`writes` is their share; with `spread` no key is put twice but by chance."""

    name: str
    writes: float
    callers: int = CALLERS
    spread: bool = False


MIXES = (
    Mix("reads alone", 0.0),
    Mix("10% writes", 0.1),
    Mix("writes alone", 1.0),
    Mix("writes alone, of other keys each time, by 2 callers", 1.0, callers=2, spread=True),
)

_WEIGHTS = list(itertools.accumulate(1 / (rank + 1) for rank in range(KEYS)))


class Side:
    """One strategy, in an application of its own."""

    def __init__(self, url: str, kind: type[Any], mix: Mix) -> None:
        self.og: Outgrow = outgrow(url)
        self.name, self.mix = kind.__name__, mix
        more = {"keys": int} if kind is WriteBehind else {}
        self.strategy = kind(self.og, self.name, self.load, store=self.store, ttl=TTL_S, **more)
        self.counted: Counter[str] = Counter()
        self.reads: list[float] = []
        self.hottest: list[float] = []
        self.puts: list[float] = []
        self.seen_after: list[float] = []
        self.rates: list[float] = []
        self._n = itertools.count(1)
        self._watching: set[asyncio.Task[None]] = set()
        self.og.events.query_finished.subscribe(lambda *_: self.count("statements"))
        self.og.events.transaction_finished.subscribe(lambda *_: self.count("transactions"))

    def count(self, what: str, by: int = 1) -> None:
        self.counted[what] += by

    async def load(self, tx: Any, key: int) -> int:
        self.count("loads")
        found: int | None = await tx.value(GET, wanted=f"{self.name}.{key}")
        await asyncio.sleep(LOAD_S)
        return found or 0

    async def store(self, tx: Any, values: Mapping[int, int]) -> None:
        self.count("stored", len(values))
        await tx.many(STORE, [{"name": f"{self.name}.{key}", "n": n} for key, n in sorted(values.items())])

    async def turn(self, seconds: float, other: Outgrow) -> None:
        """As fast as it is answered; it is over when all that was put has been stored, too."""
        before, began = len(self.reads) + len(self.puts), perf_counter()
        end = began + seconds
        await asyncio.gather(*(self._caller(end, other) for _ in range(self.mix.callers)))
        if isinstance(self.strategy, WriteBehind):
            await self.strategy.flush()
        done = len(self.reads) + len(self.puts) - before
        self.rates.append(done / (perf_counter() - began))

    async def _caller(self, end: float, other: Outgrow) -> None:
        while (began := perf_counter()) < end:
            key = random.randrange(1 << 40) if self.mix.spread else _popular()
            if random.random() >= self.mix.writes:
                await self.strategy.get(key)
                took = perf_counter() - began
                self.reads.append(took)
                if key < HOTTEST:
                    self.hottest.append(took)
                await asyncio.sleep(0)  # a hit does not give way by itself
                continue
            n = next(self._n)
            await self.strategy.put(key, n)
            now = perf_counter()
            self.puts.append(now - began)
            if random.random() < SAMPLED:
                task = asyncio.create_task(self._watch(other, key, n, now))
                self._watching.add(task)
                task.add_done_callback(self._watching.discard)

    async def _watch(self, other: Outgrow, key: int, n: int, put: float) -> None:
        """Until somebody else's query shows it, or what was put later."""
        while True:
            async with other.db.read() as tx:
                found = await tx.value(GET, wanted=f"{self.name}.{key}")
            if (found or 0) >= n - CALLERS:  # two that were put at once may be stored in either order
                self.seen_after.append(perf_counter() - put)
                return
            await asyncio.sleep(0.01)

    async def settle(self) -> None:
        """Nobody looks any more for what it has put."""
        await asyncio.gather(*self._watching)

    def row(self, measure: Side) -> list[str]:
        """Its line of the table. `measure` is the one to which its rate is compared, round by round."""
        counted, operations, puts = self.counted, len(self.reads) + len(self.puts), len(self.puts)
        return [
            f"`{self.name}`",
            f"{report.median(self.rates):,.0f}",
            report.spread([mine / its for mine, its in zip(self.rates, measure.rates, strict=True)], ".1f"),
            _times(self.reads),
            f"{1000 * percentile(self.hottest, 0.99):.2f} ms" if self.hottest else "-",
            _times(self.puts),
            f"{100 * counted['loads'] / len(self.reads):.1f}" if self.reads else "-",
            f"{counted['statements'] / operations:.2f}",
            f"{counted['transactions'] / puts:.2f}" if puts else "-",
            f"{counted['stored'] / puts:.2f}" if puts else "-",
            f"{1000 * report.median(self.seen_after):,.0f} ms" if self.seen_after else "-",
        ]


HEAD = (
    *(
        "strategy",
        "operations/s",
        "to `ReadThrough`",
        "get p50, p99",
        "p99 of the 10 hottest",
        "put p50, p99",
    ),
    *("loads per 100 gets", "statements per operation", "commits per put", "rows stored per put"),
    "own query shows it after",
)


def _popular() -> int:
    return bisect.bisect(_WEIGHTS, random.random() * _WEIGHTS[-1])


def _times(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return ", ".join(f"{1000 * percentile(seconds, share):.2f} ms" for share in (0.5, 0.99))


def run(*, quick: bool = False) -> str:
    """The tables, as Markdown."""
    texts = []
    server = PostgresServer(durable=True)
    try:
        server.initialise()
        server.start()
        for mix in MIXES:
            texts += [uvloop.run(_mix("PostgreSQL", server.create_database(), mix, quick))]
    finally:
        server.stop()
    with tempfile.TemporaryDirectory(prefix="outgrow-bench-") as folder:
        for number, mix in enumerate(MIXES):
            url = f"sqlite:///{Path(folder) / f'{number}.db'}"
            texts += [uvloop.run(_mix("SQLite", url, mix, quick))]
    return "\n\n".join(texts)


async def _mix(engine: str, url: str, mix: Mix, quick: bool) -> str:
    await migrate(url, None)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(outgrow(url))
        async with other.db.write() as tx:
            await tx.execute(CREATE)
        sides = [Side(url, kind, mix) for kind in FIVE]
        for side in sides:
            await stack.enter_async_context(side.og)
            side.og.flushers.start()
        for _ in range(1 if quick else ROUNDS):
            for side in random.sample(sides, len(sides)):
                await side.turn(0.2 if quick else TURN_S, other)
                await side.settle()
        measure = sides[FIVE.index(ReadThrough)]
        rows = [side.row(measure) for side in sides]
        return f"### {engine}, {mix.name}\n\n{report.table(HEAD, rows)}"

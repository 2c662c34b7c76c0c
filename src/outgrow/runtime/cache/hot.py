"""Which keys are read most in this process, and what that is good for. A hit pays one counter for it.

    hit ─► entry.reads += 1          anything else ─► note(key)
              └──── collect, once a second at most ────────┘
                       └► the TRACKED most read, their reads fading with the time ─► hottest (for people)
                            └► hot ones ─► kept: what is evicted is found again here
                                     └───► readers: so many times more does chance begin their next load early

Between two collections every key that is read past the memory is counted, at most COUNTED of them; after it
the TRACKED most read are remembered. A key that makes up more than a part in TRACKED of the reads is so never
lost (the idea of Metwally's Space-Saving, ICDT 2005, by batches, since a batch costs a read less).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic

import msgspec

from outgrow import endpoints
from outgrow.runtime.cache.memory import Entries, Entry, size_of

TRACKED = 256
COUNTED = 4096
COLLECTED_EVERY_S = 1.0
COLLECTED_MAX = 2_500
"""Entries whose counters are read at once, in less than a millisecond; of more the rest is read later."""

FADES_S = 30.0
"""Reads of so long ago count a third (1/e)."""

HOT_FROM = 10.0
"""Reads a second in this process."""

KEPT_MAX, KEPT_SHARE = 32, 0.1
"""So many hot entries are kept whatever else comes, and no more than this share of what may be kept."""


class HotKey(msgspec.Struct, frozen=True):
    """`rate` is its reads a second, however they ended, `share` its part of all reads of this process."""

    key: str
    rate: float
    share: float
    kept: bool


class Hot:
    """Of the entries of this process. `kept` are those that no other pushes out."""

    def __init__(
        self, entries: Entries, settings: endpoints.Cache, clock: Callable[[], float] = monotonic
    ) -> None:
        self.kept: dict[str, Entry] = {}
        self._entries = entries
        self._peek: Callable[[str], Entry | None] = getattr(entries, "peek", entries.get)  # no use of it
        self._kept_max = min(KEPT_MAX, int(settings.entries_max * KEPT_SHARE))
        self._bytes_max = math.inf if settings.bytes_max is None else settings.bytes_max * KEPT_SHARE
        self._clock = clock
        self._counted: dict[str, int] = {}
        self._heat: dict[str, float] = {}
        self._all = 0.0
        self._began = self._at = clock()
        self._turn: Iterator[str] = iter(())

    def note(self, key: str, reads: int = 1) -> None:
        """It was read, and no counter of an entry tells so."""
        counted = self._counted
        counted[key] = counted.get(key, 0) + reads
        if len(counted) >= COUNTED or self._clock() > self._at + COLLECTED_EVERY_S:
            self.collect()

    def readers(self, key: str, seconds: float) -> float:
        """How many will probably read it within so long; at least one."""
        heat = self._heat.get(key)
        return 1.0 if heat is None else max(1.0, heat / self._seen_s() * seconds)

    def hottest(self, count: int) -> list[HotKey]:
        """The most read by now, with the first of them first."""
        self.collect()
        seen_s = self._seen_s()
        top = heapq.nlargest(count, self._heat.items(), key=lambda each: each[1])
        return [HotKey(key, heat / seen_s, heat / self._all, key in self.kept) for key, heat in top]

    def collect(self) -> None:
        """Take over what has been read since, and see which are hot."""
        now = self._clock()
        fading = math.exp((self._at - now) / FADES_S)
        self._at = now
        heat = {key: past * fading for key, past in self._heat.items()}
        counted, self._counted = self._counted, {}
        for key in self._some():
            entry = self._peek(key) or self.kept.get(key)
            if entry is not None and entry.reads:
                counted[key] = counted.get(key, 0) + entry.reads
                entry.reads = 0
        self._all = self._all * fading + sum(counted.values())
        for key, reads in counted.items():
            heat[key] = heat.get(key, 0.0) + reads
        if len(heat) > TRACKED:
            heat = dict(heapq.nlargest(TRACKED, heat.items(), key=lambda each: each[1]))
        self._heat = heat
        self._keep()

    def _some(self) -> Iterator[str]:
        """Keys of entries: all if they are not too many, else those whose turn it is; and the kept ones."""
        some = list(islice(self._turn, COLLECTED_MAX))
        if len(some) < COLLECTED_MAX:
            self._turn = iter(list(self._entries.keys()))
            some += islice(self._turn, COLLECTED_MAX - len(some))
        return iter(dict.fromkeys([*some, *self.kept]))

    def _keep(self) -> None:
        least, left = HOT_FROM * self._seen_s(), self._bytes_max
        hot = [key for key, heat in self._heat.items() if heat >= least]
        before = dict(self.kept)
        self.kept.clear()
        for key in heapq.nlargest(self._kept_max, hot, key=self._heat.__getitem__):
            entry = self._peek(key) or before.get(key)
            if entry is None:
                continue
            left -= size_of(entry) if left < math.inf else 0
            if left >= 0:
                self.kept[key] = entry

    def _seen_s(self) -> float:
        """By how much a read a second has come to."""
        return max(FADES_S * (1 - math.exp((self._began - self._at) / FADES_S)), 1.0)

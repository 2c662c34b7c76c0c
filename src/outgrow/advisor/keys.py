"""The keys of the cache that are read most in all processes together, from what each tells of itself.

They may name people, so they are shown to whoever runs the fleet, and are in no metric.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import msgspec


class Told(msgspec.Struct, frozen=True):
    """/metrics/keys of one process: reads a second, part of all its reads, whether none pushes it out."""

    key: str
    rate: float
    share: float
    kept: bool


class Key(msgspec.Struct, frozen=True):
    """One key in all processes. `kept` is in how many of them nothing pushes it out."""

    key: str
    rate: float
    share: float
    kept: int


_decoder = msgspec.json.Decoder(list[Told])


def read(body: bytes) -> list[Told]:
    """What one process tells. Raises msgspec.DecodeError when that is none of it."""
    return _decoder.decode(body)


def hottest(processes: Iterable[Sequence[Told]], count: int) -> list[Key]:
    """The most read ones, the first of them first."""
    rates: dict[str, float] = {}
    kept: dict[str, int] = {}
    reads = 0.0
    for told in processes:
        if told:
            reads += told[0].rate / told[0].share
        for each in told:
            rates[each.key] = rates.get(each.key, 0.0) + each.rate
            kept[each.key] = kept.get(each.key, 0) + each.kept
    top = heapq.nlargest(count, rates.items(), key=lambda each: each[1])
    return [Key(key, rate, rate / reads, kept[key]) for key, rate in top]

"""What the caches of all processes have done since each began, from the counters that they expose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from outgrow.advisor.measures import FOUND, Distribution, Figures, distribution

OUTCOMES = (*FOUND, "miss", "stale", "session")
"""All of them, as docs/metrics.md says what they are."""


class Reads(msgspec.Struct, frozen=True):
    """Of one key prefix, or of all (""). `load_seconds` is the mean; None where there was none to measure."""

    prefix: str
    outcomes: dict[str, int]
    reads: int
    hit_rate: float | None
    loads: int
    load_seconds: float | None


def prefixes(processes: Iterable[Figures]) -> list[Reads]:
    """Each key prefix, with the one that is read most at first."""
    known = list(processes)
    names = {labels[0] for each in known for labels, _ in _series(each, "outgrow_cache_reads_total")}
    found = [_reads(name, known) for name in names]
    return sorted(found, key=lambda each: (-each.reads, each.prefix))


def whole(processes: Iterable[Figures]) -> Reads:
    """All prefixes together."""
    return _reads("", list(processes), every=True)


def _reads(prefix: str, processes: list[Figures], *, every: bool = False) -> Reads:
    outcomes: Counter[str] = Counter()
    loads = Distribution()
    for each in processes:
        for (of, outcome), values in _series(each, "outgrow_cache_reads_total"):
            if every or of == prefix:
                outcomes[outcome] += int(values[0])
        family = each.get("outgrow_cache_load_seconds")
        rows = [values for labels, values in family.series if every or labels[0] == prefix] if family else []
        loads = loads.plus(distribution(family, rows))
    count, loaded = outcomes.total(), int(loads.count)
    return Reads(
        prefix,
        {outcome: outcomes[outcome] for outcome in OUTCOMES},
        count,
        sum(outcomes[outcome] for outcome in FOUND) / count if count else None,
        loaded,
        loads.sum / loaded if loaded else None,
    )


def _series(figures: Figures, name: str) -> list[tuple[tuple[str, ...], list[float]]]:
    family = figures.get(name)
    return family.series if family is not None else []

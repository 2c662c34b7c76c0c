"""The caches over the last minute: hit rates by prefix, size, what had to go, and the hottest keys. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outgrow.advisor import keys, measures
from outgrow.advisor.keys import Told
from outgrow.advisor.measures import FOUND, Distribution
from outgrow.dashboard.snapshot import CachePrefix, Caches
from outgrow.dashboard.tables import Minute, counts, distributions
from outgrow.engines.redis.cache import Figures as Server

READS, LOADS = "outgrow_cache_reads_total", "outgrow_cache_load_seconds"
KEYS_SHOWN = 12
PREFIXES_SHOWN = 50


def caches(minutes: Sequence[Minute], told: Iterable[Sequence[Told]], server: Server | None) -> Caches | None:
    """None while no process has read anything from a cache."""
    if not any(READS in minute.now and minute.now[READS].series for minute in minutes):
        return None
    found = _prefixes(minutes)
    rate, hits = sum(each.rate for each in found), sum(each.rate * (each.hit_rate or 0) for each in found)
    return Caches(
        rate=rate,
        hit_rate=hits / rate if rate else None,
        entries=_sum(minutes, "outgrow_cache_entries"),
        bytes=_sum(minutes, "outgrow_cache_bytes"),
        evicted=sum(
            count / minute.seconds
            for minute in minutes
            for _, count in counts(minute, "outgrow_cache_evicted_total")
        ),
        server_bytes=server.memory if server is not None else None,
        server_bytes_max=server.memory_max if server is not None else None,
        prefixes=found[:PREFIXES_SHOWN],
        keys=keys.hottest(told, KEYS_SHOWN),
    )


def _prefixes(minutes: Sequence[Minute]) -> list[CachePrefix]:
    reads: dict[str, dict[str, float]] = {}
    loads: dict[str, Distribution] = {}
    rates: dict[str, float] = {}
    for minute in minutes:
        for (prefix, outcome), count in counts(minute, READS):
            by_outcome = reads.setdefault(prefix, {})
            by_outcome[outcome] = by_outcome.get(outcome, 0.0) + count / minute.seconds
        for (prefix, _), new in distributions(minute, LOADS):
            loads[prefix] = loads.get(prefix, Distribution()).plus(new)
            rates[prefix] = rates.get(prefix, 0.0) + new.count / minute.seconds
    found = [
        _prefix(prefix, each, loads.get(prefix), rates.get(prefix, 0.0)) for prefix, each in reads.items()
    ]
    return sorted(found, key=lambda each: -each.rate)


def _prefix(prefix: str, outcomes: dict[str, float], loads: Distribution | None, rate: float) -> CachePrefix:
    reads = sum(outcomes.values())
    return CachePrefix(
        prefix=prefix,
        rate=reads,
        hit_rate=sum(outcomes.get(outcome, 0.0) for outcome in FOUND) / reads if reads else None,
        shared=outcomes.get("shared", 0.0),
        sessions=outcomes.get("session", 0.0),
        loads=rate,
        load_ms=loads.sum / loads.count * 1000 if loads is not None and loads.count else None,
    )


def _sum(minutes: Sequence[Minute], name: str) -> int:
    return int(sum(measures.single(minute.now, name) for minute in minutes))

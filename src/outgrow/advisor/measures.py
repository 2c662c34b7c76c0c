"""From the counters that a process exposes to what happened between two looks: rates and quantiles.

/metrics as JSON ─► Figures ─► Totals ─► Tally (what is new since the last Totals)
                                            └► summed over processes ─► rate, p50, p95, p99 ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

Labels = tuple[str, ...]
Key = TypeVar("Key", str, Labels)

FOUND = ("hit", "shared", "waited", "old")
"""Outcomes of a read of the cache that needed no load of its own."""


class Family(msgspec.Struct):
    """One metric with all its series; of a histogram each bucket's own count, then the sum."""

    kind: str
    labels: Labels
    bounds: tuple[float, ...]
    series: list[tuple[Labels, list[float]]]


Figures = dict[str, Family]

_decoder = msgspec.json.Decoder(Figures)


def read(body: bytes) -> Figures:
    """The figures of one process. Raises msgspec.DecodeError when they are none."""
    return _decoder.decode(body)


class Distribution(msgspec.Struct, frozen=True):
    """Counts by bucket. `bounds` are the buckets' upper ends in seconds; the last bucket has none."""

    bounds: tuple[float, ...] = ()
    counts: list[float] = []
    sum: float = 0.0

    @property
    def count(self) -> float:
        """How many there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Where so much of them lies below, linear within a bucket; None of nothing."""
        wanted = share * self.count
        if not wanted:
            return None
        below, seen = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if seen + count >= wanted:
                return below + (bound - below) * (wanted - seen) / count
            below, seen = bound, seen + count
        return below

    def plus(self, other: Distribution) -> Distribution:
        """Both together."""
        if not self.counts:
            return other
        if not other.counts:
            return self
        return Distribution(
            self.bounds, [a + b for a, b in zip(self.counts, other.counts, strict=True)], self.sum + other.sum
        )

    def since(self, before: Distribution) -> Distribution:
        """What is new since `before`; everything, if the counters have begun anew."""
        if not before.counts:
            return self
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return self if min(counts) < 0 else Distribution(self.bounds, counts, self.sum - before.sum)


def distribution(family: Family | None, chosen: Iterable[Sequence[float]] | None = None) -> Distribution:
    """All series of a histogram together, or the chosen ones."""
    if family is None:
        return Distribution()
    rows = [figures for _, figures in family.series] if chosen is None else list(chosen)
    if not rows:
        return Distribution(family.bounds, [0.0] * (len(family.bounds) + 1))
    columns: list[float] = [sum(column) for column in zip(*rows, strict=True)]
    return Distribution(family.bounds, columns[:-1], columns[-1])


class Totals(msgspec.Struct):
    """What one process has counted since its start."""

    started: float
    requests: Distribution
    statuses: dict[str, float]
    queries: Distribution
    query_errors: float
    waits: Distribution
    writes: float
    cache: dict[str, float]
    staged: float
    tasks: dict[str, float]
    reads: dict[Labels, float]


class Tally(msgspec.Struct):
    """What has happened within `seconds`, in one process or in several.

    `reads` are those of a database with replicas, by (node, reason).
    """

    seconds: float = 0.0
    requests: Distribution = Distribution()
    statuses: dict[str, float] = {}
    queries: Distribution = Distribution()
    query_errors: float = 0.0
    waits: Distribution = Distribution()
    writes: float = 0.0
    cache: dict[str, float] = {}
    staged: float = 0.0
    tasks: dict[str, float] = {}
    reads: dict[Labels, float] = {}

    def plus(self, other: Tally) -> Tally:
        """Both together, in the longer of both times: processes work side by side."""
        return Tally(
            seconds=max(self.seconds, other.seconds),
            requests=self.requests.plus(other.requests),
            statuses=_sum(self.statuses, other.statuses),
            queries=self.queries.plus(other.queries),
            query_errors=self.query_errors + other.query_errors,
            waits=self.waits.plus(other.waits),
            writes=self.writes + other.writes,
            cache=_sum(self.cache, other.cache),
            staged=self.staged + other.staged,
            tasks=_sum(self.tasks, other.tasks),
            reads=_sum(self.reads, other.reads),
        )

    def then(self, later: Tally) -> Tally:
        """This and what came after it: the times add up."""
        both = self.plus(later)
        both.seconds = self.seconds + later.seconds
        return both

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests.count / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> float:
        """Answers with a status from 500 on, a second."""
        return self.statuses.get("5", 0.0) / self.seconds if self.seconds else 0.0

    @property
    def hit_share(self) -> float | None:
        """Of the reads of the cache, those that needed no load of their own; None of no reads."""
        reads = sum(self.cache.values())
        return sum(self.cache.get(outcome, 0.0) for outcome in FOUND) / reads if reads else None


def totals(figures: Figures) -> Totals:
    """The totals of one process."""
    transactions = figures.get("outgrow_db_transaction_seconds")
    return Totals(
        started=single(figures, "process_start_time_seconds"),
        requests=distribution(figures.get("outgrow_http_request_seconds")),
        statuses=_by(figures.get("outgrow_http_requests_total"), "status", 1),
        queries=distribution(figures.get("outgrow_db_query_seconds")),
        query_errors=sum(_by(figures.get("outgrow_db_query_errors_total"), "node").values()),
        waits=distribution(figures.get("outgrow_db_connection_wait_seconds")),
        writes=_by(transactions, "outcome").get("commit", 0.0),
        cache=_by(figures.get("outgrow_cache_reads_total"), "outcome"),
        staged=sum(_by(figures.get("outgrow_queue_messages_staged_total"), "topic").values()),
        tasks=_by(figures.get("outgrow_queue_message_seconds"), "outcome"),
        reads=_counts(figures.get("outgrow_db_reads_total")),
    )


def since(now: Totals, before: Totals, seconds: float) -> Tally:
    """What is new since `before`; everything, if the process is another one."""
    if now.started != before.started:
        before = Totals(now.started, Distribution(), {}, Distribution(), 0, Distribution(), 0, {}, 0, {}, {})
    return Tally(
        seconds=seconds,
        requests=now.requests.since(before.requests),
        statuses=_difference(now.statuses, before.statuses),
        queries=now.queries.since(before.queries),
        query_errors=max(0.0, now.query_errors - before.query_errors),
        waits=now.waits.since(before.waits),
        writes=max(0.0, now.writes - before.writes),
        cache=_difference(now.cache, before.cache),
        staged=max(0.0, now.staged - before.staged),
        tasks=_difference(now.tasks, before.tasks),
        reads=_difference(now.reads, before.reads),
    )


def single(figures: Figures, name: str) -> float:
    """The figure of a metric without labels; 0 where there is none."""
    family = figures.get(name)
    return family.series[0][1][0] if family is not None and family.series else 0.0


def _by(family: Family | None, label: str, letters: int | None = None) -> dict[str, float]:
    """The counts of a metric by one label, or by the first letters of it."""
    found: dict[str, float] = {}
    if family is None or label not in family.labels:
        return found
    index = family.labels.index(label)
    histogram = family.kind == "histogram"
    for labels, values in family.series:
        key = labels[index][:letters]
        found[key] = found.get(key, 0.0) + (sum(values[:-1]) if histogram else values[0])
    return found


def _counts(family: Family | None) -> dict[Labels, float]:
    """A counter by all its labels."""
    return {labels: values[0] for labels, values in family.series} if family is not None else {}


def _sum(one: dict[Key, float], other: dict[Key, float]) -> dict[Key, float]:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in one.keys() | other.keys()}


def _difference(now: dict[Key, float], before: dict[Key, float]) -> dict[Key, float]:
    return {key: max(0.0, value - before.get(key, 0.0)) for key, value in now.items()}

"""What happened: how long, how often, what went wrong, and when. Its memory is bounded.

    intended ──── noticed ──────── sent ──────────── finished
        │ lateness:  │ waited: for     │ service: the      │
        │ our own    │ a connection    │ application's     │
        └──────────────────── latency ─────────────────────┘

Times are seconds from the beginning; durations are kept in microseconds. Requests that were meant to
start within the warm-up appear in the rows and nowhere else, but for violations: those always count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from outgrow.load.histogram import COARSE_BITS, Histogram
from outgrow.load.traffic import Violation

ROWS_MAX = 1_200
"""Twenty minutes of seconds; a longer run gets rows of two seconds, then of four."""

EXAMPLES_MAX = 3
EXAMPLE_KINDS_MAX = 40
VIOLATIONS_SHOWN = 20
DETAIL_MAX = 2_000

NOT_SENT = "not sent"


@dataclass(slots=True)
class Row:
    """One second, or several of a long run, by when things happened."""

    intended: int = 0
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=lambda: Histogram(COARSE_BITS))
    lateness: Histogram = field(default_factory=lambda: Histogram(COARSE_BITS))
    waiting: int = 0

    def add(self, other: Row) -> None:
        """Take in the row that follows."""
        self.intended += other.intended
        self.answered += other.answered
        self.errors += other.errors
        self.latency.add(other.latency)
        self.lateness.add(other.lateness)
        self.waiting = max(self.waiting, other.waiting)


@dataclass(slots=True)
class Named:
    """All requests of one name."""

    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    finished: int = 0


class Example(NamedTuple):
    """One request that went wrong. `asked` is its method and path; `second` counts from the beginning."""

    kind: str
    request: str
    second: float
    trace_id: str
    asked: str
    detail: str
    violations: tuple[Violation, ...] = ()


class Recorder:
    """Of one run. `warmup_s` is not measured."""

    def __init__(self, warmup_s: float) -> None:
        self._warmup_s = warmup_s
        self.row_s = 1.0
        self.rows: list[Row] = []
        self.names: dict[str, Named] = {}
        self.latency, self.service, self.failed = Histogram(), Histogram(), Histogram()
        self.lateness, self.waited = Histogram(), Histogram()
        self.errors: Counter[str] = Counter()
        self.intended = 0
        self.answered = 0
        self.violations = 0
        self.examples: list[Example] = []
        self.violating: list[Example] = []

    def noticed(self, intended: float, now: float) -> None:
        """A start was due, and the generator has turned to it."""
        late = _microseconds(now - intended)
        row = self._row(intended)
        row.intended += 1
        row.lateness.record(late)
        if intended >= self._warmup_s:
            self.intended += 1
            self.lateness.record(late)

    def waiting(self, now: float, count: int) -> None:
        """So many requests wait for a connection."""
        row = self._row(now)
        row.waiting = max(row.waiting, count)

    def was_sent(self, intended: float, waited_s: float) -> None:
        """It has left, after waiting for a connection for so long."""
        if intended >= self._warmup_s:
            self.waited.record(_microseconds(waited_s))

    def right(self, name: str, intended: float, sent: float, now: float) -> None:
        """The answer came, and is as it should be."""
        latency, row = _microseconds(now - intended), self._row(now)
        row.answered += 1
        row.latency.record(latency)
        if intended >= self._warmup_s:
            service, named = _microseconds(now - sent), self._named(name)
            self.answered += 1
            self.latency.record(latency)
            self.service.record(service)
            named.finished += 1
            named.latency.record(latency)
            named.service.record(service)

    def wrong(self, example: Example, intended: float) -> None:
        """The request has failed, or its answer was wrong."""
        self._row(example.second).errors[example.kind] += 1
        self.violations += len(example.violations)
        if example.violations and len(self.violating) < VIOLATIONS_SHOWN:
            self.violating.append(_bounded(example))
        if intended < self._warmup_s:
            return
        self.errors[example.kind] += 1
        self.failed.record(_microseconds(example.second - intended))
        named = self._named(example.request)
        named.finished += 1
        named.errors[example.kind] += 1
        if not example.violations:
            self._keep(example)

    def not_sent(self, intended: float, now: float, why: str) -> None:
        """It never left: too many were waiting for a connection."""
        self._row(now).errors[NOT_SENT] += 1
        if intended >= self._warmup_s:
            self.errors[NOT_SENT] += 1
            self._keep(Example(NOT_SENT, "", now, "", "", why))

    def _keep(self, example: Example) -> None:
        """The first ones of each kind."""
        kinds = Counter(each.kind for each in self.examples)
        if kinds[example.kind] < EXAMPLES_MAX and len(kinds) <= EXAMPLE_KINDS_MAX:
            self.examples.append(_bounded(example))

    def _named(self, name: str) -> Named:
        if name not in self.names:
            self.names[name] = Named()
        return self.names[name]

    def _row(self, second: float) -> Row:
        while int(second / self.row_s) >= ROWS_MAX:
            self._merge()
        number = int(second / self.row_s)
        while len(self.rows) <= number:
            self.rows.append(Row())
        return self.rows[number]

    def _merge(self) -> None:
        for first, second in zip(self.rows[::2], self.rows[1::2], strict=False):
            first.add(second)
        self.rows = self.rows[::2]
        self.row_s *= 2


def _bounded(example: Example) -> Example:
    return example._replace(detail=example.detail[:DETAIL_MAX])


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)

"""The outcome of a run as one document: what JSON has, and what text.py and html.py show.

Durations are milliseconds, moments are seconds from the beginning (warm-up included). docs/load.md
explains each figure.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

import msgspec

from outgrow.load.histogram import Histogram
from outgrow.load.profile import Phase, Scenario
from outgrow.load.recorder import NOT_SENT, Example, Recorder, Row
from outgrow.load.schedule import rate_at

FORMAT = 1
"""Rises when a key changes its meaning or goes."""

PERCENTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)

LATE_MS = 10.0
"""A generator later than this at p99 has measured itself."""

CPU_MOST = 0.9


class Run(NamedTuple):
    """What the generator knows beside what was recorded."""

    target: str
    run: str
    started_at: float
    seconds: float
    interrupted: bool
    connections: int
    connections_opened: int
    cpu: float
    checked: int


class Durations(msgspec.Struct, frozen=True):
    """A histogram. `steps` holds [highest, count] of each step that was hit; percentiles are of these."""

    count: int
    mean: float
    minimum: float
    maximum: float
    percentiles: dict[str, float]
    steps: list[tuple[float, int]]


class Named(msgspec.Struct, frozen=True):
    """All measured requests of one name."""

    name: str
    count: int
    errors: dict[str, int]
    latency: Durations
    service: Durations


class Contradiction(msgspec.Struct, frozen=True):
    """A fact that an answer contradicts."""

    fact: str
    expected: str
    found: str


class Case(msgspec.Struct, frozen=True):
    """One request that went wrong: an example of its kind. `detail` is the answer's body, if any."""

    kind: str
    request: str
    second: float
    trace_id: str
    asked: str
    detail: str
    contradictions: list[Contradiction] = []


class Second(msgspec.Struct, frozen=True):
    """One row of the series: `second` is its beginning. `target` is the rate that was meant, a second."""

    second: float
    warmup: bool
    target: float
    intended: int
    answered: int
    errors: dict[str, int]
    p50: float
    p95: float
    p99: float
    maximum: float
    late_p99: float
    late_maximum: float
    waiting: int


class Report(msgspec.Struct, frozen=True):
    """A whole run. Counts are of the measured time; the series holds the warm-up, too."""

    format: int
    scenario: str
    target: str
    run: str
    started: str
    seconds: float
    warmup: float
    interrupted: bool
    phases: list[Phase]
    arrivals: str
    users: int
    connections: int
    connections_opened: int
    bookmark: str
    seed: int
    rate_intended: float
    rate_achieved: float
    intended: int
    answered: int
    failed: int
    not_sent: int
    checked: int
    violations: int
    latency: Durations
    service: Durations
    waited: Durations
    late: Durations
    failures: Durations
    requests: list[Named]
    errors: dict[str, int]
    examples: list[Case]
    violating: list[Case]
    row_seconds: float
    series: list[Second]
    cpu: float
    warnings: list[str]

    @property
    def error_share(self) -> float:
        """Of all that should have been answered; 0 of nothing."""
        return (self.failed + self.not_sent) / self.intended if self.intended else 0.0


def report(scenario: Scenario, recorder: Recorder, run: Run) -> Report:
    """The document of a run that has ended."""
    measured = max(run.seconds - scenario.warmup, 0.0)
    planned = min(scenario.seconds, measured) if run.interrupted else scenario.seconds
    taken = max(planned, measured)
    not_sent = recorder.errors[NOT_SENT]
    return Report(
        format=FORMAT,
        scenario=scenario.name,
        target=run.target,
        run=run.run,
        started=datetime.datetime.fromtimestamp(run.started_at, datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(run.seconds, 3),
        warmup=scenario.warmup,
        interrupted=run.interrupted,
        phases=list(scenario.phases),
        arrivals=scenario.arrivals,
        users=scenario.users,
        connections=run.connections,
        connections_opened=run.connections_opened,
        bookmark=scenario.bookmark,
        seed=scenario.seed,
        rate_intended=round(recorder.intended / planned, 2) if planned else 0.0,
        rate_achieved=round(recorder.answered / taken, 2) if taken else 0.0,
        intended=recorder.intended,
        answered=recorder.answered,
        failed=recorder.errors.total() - not_sent,
        not_sent=not_sent,
        checked=run.checked,
        violations=recorder.violations,
        latency=_durations(recorder.latency),
        service=_durations(recorder.service),
        waited=_durations(recorder.waited),
        late=_durations(recorder.lateness),
        failures=_durations(recorder.failed),
        requests=_named(recorder),
        errors=dict(recorder.errors.most_common()),
        examples=[_case(each) for each in recorder.examples],
        violating=[_case(each) for each in recorder.violating],
        row_seconds=recorder.row_s,
        series=_series(scenario, recorder),
        cpu=round(run.cpu, 3),
        warnings=_warnings(recorder, run),
    )


def _named(recorder: Recorder) -> list[Named]:
    rows = sorted(recorder.names.items(), key=lambda each: -each[1].finished)
    return [
        Named(name, row.finished, dict(row.errors), _durations(row.latency), _durations(row.service))
        for name, row in rows
    ]


def _case(example: Example) -> Case:
    contradictions = [Contradiction(*each) for each in example.violations]
    return Case(
        example.kind,
        example.request,
        round(example.second, 3),
        example.trace_id,
        example.asked,
        example.detail,
        contradictions,
    )


def _durations(histogram: Histogram) -> Durations:
    values = histogram.percentiles(PERCENTS)
    return Durations(
        count=histogram.count,
        mean=round(histogram.mean / 1000, 3),
        minimum=histogram.minimum / 1000,
        maximum=histogram.maximum / 1000,
        percentiles={f"{percent:g}": value / 1000 for percent, value in zip(PERCENTS, values, strict=True)},
        steps=[(highest / 1000, count) for highest, count in histogram.steps()],
    )


def _series(scenario: Scenario, recorder: Recorder) -> list[Second]:
    width = recorder.row_s
    return [_second(scenario, number * width, width, row) for number, row in enumerate(recorder.rows)]


def _second(scenario: Scenario, begins: float, width: float, row: Row) -> Second:
    p50, p95, p99 = row.latency.percentiles((50.0, 95.0, 99.0))
    return Second(
        second=begins,
        warmup=begins + width <= scenario.warmup,
        target=round(rate_at(scenario.whole, begins + width / 2), 2),
        intended=row.intended,
        answered=row.answered,
        errors=dict(row.errors),
        p50=p50 / 1000,
        p95=p95 / 1000,
        p99=p99 / 1000,
        maximum=row.latency.maximum / 1000,
        late_p99=row.lateness.percentile(99.0) / 1000,
        late_maximum=row.lateness.maximum / 1000,
        waiting=row.waiting,
    )


def _warnings(recorder: Recorder, run: Run) -> list[str]:
    """What a reader must know before believing the figures."""
    found: list[str] = []
    late = recorder.lateness.percentile(99.0) / 1000
    if late > LATE_MS:
        found.append(
            f"The generator itself was late: 1% of the requests left {late:.0f} ms or more after their time, "
            "and their latencies include that. Give it a core of its own, or a lower rate."
        )
    if run.cpu > CPU_MOST:
        found.append(
            f"The generator used {run.cpu:.0%} of a core, which is all that it can use: the rate may be its "
            "limit, not the application's."
        )
    waited = recorder.waited.percentile(99.0) / 1000
    if waited > LATE_MS:
        found.append(
            f"1% of the requests waited {waited:.0f} ms or more for one of {run.connections} connections: "
            "the application did not keep up with the rate, or needs more connections (and users)."
        )
    if not recorder.answered:
        found.append("No request was answered as it should be within the measured time.")
    return found

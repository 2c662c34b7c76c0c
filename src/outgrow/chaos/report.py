"""A drill as one document: the verdict, what happened when, and each second. JSON has it, text.py and
html.py show it."""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from outgrow.chaos.drills.drill import Drill
from outgrow.chaos.history import Attempt, Happening, History
from outgrow.chaos.verdict import Finding
from outgrow.load.report import Report as LoadReport
from outgrow.topology import Topology

FORMAT = 1
"""Rises when a key changes its meaning or goes."""


class Second(msgspec.Struct, frozen=True):
    """One second, by when things happened, in milliseconds. `errors` has reads and writes apart."""

    second: float
    answered: int
    errors: dict[str, int]
    p50: float
    p99: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole drill. `warnings` say what the figures are not to be trusted for."""

    format: int
    drill: str
    shows: str
    does: str
    held: bool
    findings: list[Finding]
    happenings: list[Happening]
    started: str
    seconds: float
    stage: str
    servers: int
    scenario: str
    rate: float
    users: int
    requests: int
    failed: dict[str, int]
    servers_answered: dict[str, int]
    series: list[Second]
    warnings: list[str]
    history: History


def report(drill: Drill, topology: Topology, history: History, load: LoadReport, started: float) -> Report:
    """The document of a drill that has ended."""
    findings = list(drill.verdict(history, topology))
    moment = datetime.datetime.fromtimestamp(started, datetime.UTC)
    return Report(
        format=FORMAT,
        drill=drill.name,
        shows=drill.shows,
        does=drill.does,
        held=all(each.held for each in findings),
        findings=findings,
        happenings=sorted(history.happenings, key=lambda each: each.at),
        started=moment.isoformat(timespec="seconds"),
        seconds=round(history.ended, 3),
        stage=topology.stage,
        servers=topology.application.count,
        scenario=load.scenario,
        rate=load.phases[0].rate if load.phases else 0.0,
        users=load.users,
        requests=len(history.attempts),
        failed=failures(history.attempts),
        servers_answered=dict(sorted(Counter(s for a in history.attempts for s in a.servers).items())),
        series=series(history.attempts),
        warnings=load.warnings,
        history=history,
    )


def failures(attempts: Iterable[Attempt]) -> dict[str, int]:
    """How often each kind of request failed, and how."""
    return dict(Counter(kind for each in attempts if (kind := failure(each))))


def failure(attempt: Attempt) -> str:
    """What failed, and how: "read: reset"; nothing when nothing did."""
    return f"{'read' if attempt.reads else 'write'}: {attempt.failure}" if attempt.failure else ""


def series(attempts: Sequence[Attempt]) -> list[Second]:
    """Each second, those without a request too."""
    by: dict[int, list[Attempt]] = defaultdict(list)
    for each in attempts:
        by[int(each.ended)].append(each)
    return [_second(number, by[number]) for number in range(max(by, default=-1) + 1)]


def _second(number: int, attempts: Sequence[Attempt]) -> Second:
    latencies = sorted(each.ended - each.intended for each in attempts if not each.failure)
    return Second(
        second=float(number),
        answered=len(latencies),
        errors=failures(attempts),
        p50=_ms(latencies, 0.50),
        p99=_ms(latencies, 0.99),
    )


def _ms(latencies: Sequence[float], share: float) -> float:
    """0 of nothing."""
    if not latencies:
        return 0.0
    return round(latencies[min(int(len(latencies) * share), len(latencies) - 1)] * 1000, 3)

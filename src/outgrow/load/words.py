"""Figures and sentences of a report, for text.py and html.py alike."""

from __future__ import annotations

from collections.abc import Iterable

from outgrow.load.profile import Phase
from outgrow.load.report import Report


def duration(ms: float) -> str:
    """0.43 ms, 12.3 ms, 340 ms, 1.25 s, 75 s."""
    if ms >= 10_000:
        return f"{ms / 1000:.0f} s"
    if ms >= 1_000:
        return f"{ms / 1000:.2f} s"
    return f"{short(ms)} ms"


def span(seconds: float) -> str:
    """A length of time that somebody has chosen: 0.5 s, 90 s, 5 min."""
    return f"{seconds:g} s" if seconds < 120 or seconds % 60 else f"{seconds / 60:g} min"


def duration_mark(ms: float) -> str:
    """A mark on an axis: 0.1 ms, 20 ms, 1 s."""
    return f"{ms / 1000:g} s" if ms >= 1_000 else f"{ms:g} ms"


def short(value: float) -> str:
    """About three digits: 0.043, 0.43, 4.32, 43.2, 432."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 0.1:
        return f"{value:.2f}"
    return f"{value:.3f}" if value else "0"


def rate(value: float) -> str:
    """Requests a second."""
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"


def share(part: float, whole: float) -> str:
    """A percentage that is never rounded to nothing."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.2g}%" if 0 < percent < 1 else f"{percent:.1f}%"


def plan(phases: Iterable[Phase]) -> str:
    """The phases in words: "30 s at 200/s, then 60 s rising from 200/s to 800/s"."""
    return ", then ".join(_phase(phase) for phase in phases)


def requests(report: Report) -> str:
    """How the requests ended."""
    return (
        f"{report.intended:,} meant to start: {report.answered:,} answered as they should be, "
        f"{report.failed:,} failed, {report.not_sent:,} not sent"
    )


def checks(report: Report) -> str:
    """What the checks have found."""
    if not report.checked:
        return "none: nothing was read that its user had written before"
    found = f"{report.violations:,} violation{'s' if report.violations != 1 else ''}"
    return f"{found} in {report.checked:,} comparisons with what the same user knew"


def settings(report: Report) -> str:
    """What a repetition must have in common."""
    kept = "bookmarks sent back" if report.bookmark == "keep" else "bookmarks dropped"
    return (
        f"{report.users:,} users, at most {report.connections:,} connections "
        f"({report.connections_opened:,} opened), {report.arrivals} arrivals, seed {report.seed}, {kept}"
    )


def _phase(phase: Phase) -> str:
    length = span(phase.duration)
    if phase.to is None or phase.to == phase.rate:
        return f"{length} at {rate(phase.rate)}"
    verb = "rising" if phase.to > phase.rate else "falling"
    return f"{length} {verb} from {rate(phase.rate)} to {rate(phase.to)}"

"""A drill's report for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos.report import Report


def text(report: Report) -> str:
    """The verdict, then what happened when."""
    return "\n".join([*_findings(report), "", *_timeline(report), *_notes(report)])


def _findings(report: Report) -> Iterator[str]:
    verdict = "held" if report.held else "BROKEN"
    yield f"{report.drill}: {verdict}. {report.shows[0].upper()}{report.shows[1:]}."
    for each in report.findings:
        yield f"  {'✓' if each.held else '✗'} {each.promise}  {each.says}"
        yield from (f"      {case}" for case in each.cases)


def _timeline(report: Report) -> Iterator[str]:
    yield "What happened"
    for each in report.happenings:
        yield f"  {each.at:8.3f} s  {each.node}: {each.text}"


def _notes(report: Report) -> Iterator[str]:
    yield ""
    failed = ", ".join(f"{count:,} {kind}" for kind, count in report.failed.items()) or "none failed"
    yield f"{report.requests:,} requests at {report.rate:g} a second by {report.users:,} users: {failed}"
    if report.servers_answered:
        yield "answered by " + ", ".join(f"{name} {n:,}" for name, n in report.servers_answered.items())
    yield from (f"warning: {each}" for each in report.warnings)

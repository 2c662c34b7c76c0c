"""A report as plain text, for a terminal or a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from outgrow.load import words
from outgrow.load.report import Case, Durations, Report

_SHOWN = ("50", "90", "95", "99", "99.9")
_DETAIL = 300


def text(report: Report) -> str:
    """The whole report."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    ended = ", ended early" if report.interrupted else ""
    yield f"{report.scenario} at {report.target}{ended}"
    yield f"{words.plan(report.phases)}, after {words.span(report.warmup)} of warm-up"
    yield words.settings(report)
    yield ""
    yield f"  rate        {words.rate(report.rate_achieved)} of {words.rate(report.rate_intended)} intended"
    yield f"  requests    {words.requests(report)}"
    yield f"  checks      {words.checks(report)}"
    yield f"  generator   {report.cpu:.0%} of a core"
    yield ""
    yield from _table(("ms", *(f"p{each}" for each in _SHOWN), "max"), _durations(report))
    if report.requests:
        yield ""
        yield from _table(("request", "count", "errors", "p50 ms", "p95", "p99", "max"), _requests(report))
    yield from _errors(report)
    for warning in report.warnings:
        yield f"\n! {warning}"


def _durations(report: Report) -> list[tuple[str, ...]]:
    rows = [("latency", report.latency), ("service", report.service), ("own lateness", report.late)]
    if report.waited.maximum >= 1:
        rows.append(("waited", report.waited))
    if report.failures.count:
        rows.append(("of failed ones", report.failures))
    return [(name, *_figures(durations)) for name, durations in rows]


def _figures(durations: Durations) -> list[str]:
    return [*(words.short(durations.percentiles[each]) for each in _SHOWN), words.short(durations.maximum)]


def _requests(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.name,
            f"{each.count:,}",
            f"{sum(each.errors.values()):,}",
            *(words.short(each.latency.percentiles[key]) for key in ("50", "95", "99")),
            words.short(each.latency.maximum),
        )
        for each in report.requests
    ]


def _errors(report: Report) -> Iterator[str]:
    if report.errors:
        yield "\nerrors"
    for kind, count in report.errors.items():
        yield f"  {count:>7,}  {kind}"
        example = next((each for each in report.examples if each.kind == kind), None)
        if example is not None:
            yield f"           {_example(example)}"
    if report.violating:
        yield f"\nviolations, the first {len(report.violating)}"
    for case in report.violating:
        yield f"  {case.asked} at {case.second:.3f} s, trace {case.trace_id}"
        for each in case.contradictions:
            yield f"    {each.fact}: {each.expected} expected, {each.found} found"


def _example(case: Case) -> str:
    where = f"{case.asked} at {case.second:.3f} s" if case.asked else f"at {case.second:.3f} s"
    trace = f", trace {case.trace_id}" if case.trace_id else ""
    detail = " ".join(case.detail.split())
    return f"{where}{trace}: {detail[:_DETAIL]}{'...' if len(detail) > _DETAIL else ''}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    table = [headings, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        first, *others = row
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield f"  {first.ljust(widths[0])}  {'  '.join(cells)}".rstrip()

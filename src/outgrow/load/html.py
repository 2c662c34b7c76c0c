"""A report as one HTML page: nothing is loaded from elsewhere, and it needs no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from outgrow.load import words
from outgrow.load.histogram import curve
from outgrow.load.plots import Axis, Hint, Line, linear, lines, logarithmic, nines, stacks
from outgrow.load.report import Case, Durations, Report, Second

Rows = Sequence[tuple[float, float, Second]]
"""(begins, ends, what happened between), in seconds."""

_KINDS_MAX = 5
_COLUMNS_MAX = 300
_LEAST_MS = 0.01
"""Where logarithmic axes begin at the latest."""


def html(report: Report) -> str:
    """The whole page."""
    return page(f"{report.scenario}: {words.rate(report.rate_achieved)}", "".join(_sections(report)))


def page(title: str, body: str) -> str:
    """A page of this look."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f"{body}</main></body></html>\n"
    )


def _sections(report: Report) -> Iterator[str]:
    yield _head(report)
    yield _tiles(report)
    for warning in report.warnings:
        yield f'<p class="warning">{escape(warning)}</p>'
    width = report.row_seconds
    rows = [(row.second, row.second + width, row) for row in report.series]
    yield '<div class="plots">'
    yield from _plots(report, rows) if rows else ()
    yield "</div>"
    yield _durations(report)
    yield _requests(report)
    yield _errors(report)
    yield _violations(report)
    yield (
        f"<footer>Run {escape(report.run)}, started {escape(report.started)}. Latency counts from the moment "
        "at which a request was meant to start; service from the moment at which it left. Shaded: the "
        "warm-up, which no figure includes.</footer>"
    )


def _head(report: Report) -> str:
    early = '<span class="early">ended early</span>' if report.interrupted else ""
    return (
        f"<header><h1>{escape(report.scenario)} {early}</h1>"
        f"<p>{escape(report.target)}: {escape(words.plan(report.phases))}, after "
        f"{words.span(report.warmup)} of warm-up</p>"
        f"<p>{escape(words.settings(report))}</p></header>"
    )


def _tiles(report: Report) -> str:
    latency = report.latency.percentiles
    wrong = report.failed + report.not_sent
    tiles = [
        ("rate", words.rate(report.rate_achieved), f"of {words.rate(report.rate_intended)} intended", ""),
        ("p50", words.duration(latency["50"]), "half are faster", ""),
        ("p99", words.duration(latency["99"]), f"slowest {words.duration(report.latency.maximum)}", ""),
        (
            "errors",
            f"{wrong:,}",
            f"{words.share(wrong, report.intended)} of {report.intended:,}",
            _state(wrong),
        ),
        ("violations", f"{report.violations:,}", f"in {report.checked:,} checks", _state(report.violations)),
    ]
    cells = "".join(
        f'<div class="tile {state}"><span>{name}</span><b>{figure}</b><small>{note}</small></div>'
        for name, figure, note, state in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _state(wrong: int) -> str:
    return "bad" if wrong else "good"


def _plots(report: Report, rows: Rows) -> Iterator[str]:
    yield _rate_plot(report, rows)
    yield _latency_plot(report, rows)
    yield _curve_plot(report)
    yield _errors_plot(report, rows)
    yield _lateness_plot(report, rows)
    if any(row.waiting for _, _, row in rows):
        yield _waiting_plot(report, rows)


def _rate_plot(report: Report, rows: Rows) -> str:
    width = report.row_seconds
    points = [((begins + ends) / 2, row) for begins, ends, row in rows]
    most = max(max(row.target, row.intended / width, row.answered / width) for _, row in points)
    drawn = [
        Line("planned", "planned", [(x, row.target) for x, row in points]),
        Line("meant to start", "second", [(x, row.intended / width) for x, row in points]),
        Line("answered", "first", [(x, row.answered / width) for x, row in points]),
    ]
    hints = _hints(
        rows, lambda row: f"{row.answered / width:,.0f} of {row.intended / width:,.0f} a second answered"
    )
    y = linear(0, most * 1.08, lambda value: f"{value:,.0f}")
    plot = lines("Requests a second", time_axis(rows), y, drawn, shade=report.warmup, hints=hints)
    return figure("Requests a second", drawn, plot)


def _latency_plot(report: Report, rows: Rows) -> str:
    points = [((begins + ends) / 2, row) for begins, ends, row in rows]
    drawn = [
        Line("p50", "first", [(x, row.p50 if row.answered else math.nan) for x, row in points]),
        Line("p95", "second", [(x, row.p95 if row.answered else math.nan) for x, row in points]),
        Line("p99", "third", [(x, row.p99 if row.answered else math.nan) for x, row in points]),
    ]
    values = [value for line in drawn for _, value in line.points]
    hints = _hints(
        rows,
        lambda row: (
            f"p50 {words.duration(row.p50)}, p95 {words.duration(row.p95)}, p99 {words.duration(row.p99)}, "
            f"slowest {words.duration(row.maximum)}"
        ),
    )
    plot = lines(
        "Latency over time", time_axis(rows), milliseconds(values), drawn, shade=report.warmup, hints=hints
    )
    return figure("Latency over time", drawn, plot)


def _curve_plot(report: Report) -> str:
    drawn = [
        Line("latency", "first", _curve(report.latency)),
        Line("service alone", "second", _curve(report.service)),
    ]
    values = [value for line in drawn for _, value in line.points]
    count = max(report.latency.count, 10)
    plot = lines("Latency by percentile", nines(1 - 1 / count), milliseconds(values), drawn)
    return figure("Latency by percentile", drawn, plot)


def _curve(durations: Durations) -> list[tuple[float, float]]:
    """The share of requests that are at most as slow; the last one stands at the axis's end."""
    if not durations.count:
        return []
    last = 1 - 1 / max(durations.count, 10)
    points = [(0.0, durations.minimum)]
    for share, highest in curve(durations.steps, durations.count):
        points.append((min(share, last), highest))
    stride = max(len(points) // _COLUMNS_MAX, 1)
    tail = points[-_COLUMNS_MAX:]
    return [*points[: -len(tail) : stride], *tail]


def _errors_plot(report: Report, rows: Rows) -> str:
    title = "Errors a second"
    totals = _kinds(rows)
    if not totals:
        return figure(title, [], '<p class="nothing">None.</p>')
    kinds = totals[:_KINDS_MAX]
    width = report.row_seconds
    columns = []
    for begins, ends, row in rows:
        named = [row.errors.get(kind, 0) / width for kind in kinds]
        columns.append((begins, ends, [*named, sum(row.errors.values()) / width - sum(named)]))
    styles = [f"kind{number}" for number in range(len(kinds))] + ["others"]
    names = [*kinds, *(["others"] if len(totals) > _KINDS_MAX else [])]
    most = max(sum(heights) for _, _, heights in columns)
    hints = _hints(rows, lambda row: ", ".join(f"{n:,} {kind}" for kind, n in row.errors.items()) or "none")
    plot = stacks(
        title,
        time_axis(rows),
        linear(0, most * 1.08, lambda value: f"{value:,g}"),
        styles,
        columns,
        shade=report.warmup,
        hints=hints,
    )
    legend = [Line(name, style, []) for name, style in zip(names, styles, strict=False)]
    return figure(title, legend, plot)


def _kinds(rows: Rows) -> list[str]:
    counts: dict[str, int] = {}
    for _, _, row in rows:
        for kind, count in row.errors.items():
            counts[kind] = counts.get(kind, 0) + count
    return sorted(counts, key=lambda kind: -counts[kind])


def _lateness_plot(report: Report, rows: Rows) -> str:
    points = [((begins + ends) / 2, row) for begins, ends, row in rows]
    drawn = [
        Line("p99", "first", [(x, row.late_p99 if row.intended else math.nan) for x, row in points]),
        Line("most", "second", [(x, row.late_maximum if row.intended else math.nan) for x, row in points]),
    ]
    values = [value for line in drawn for _, value in line.points]
    hints = _hints(
        rows, lambda row: f"p99 {words.duration(row.late_p99)}, most {words.duration(row.late_maximum)}"
    )
    title = "How late the generator itself was"
    plot = lines(title, time_axis(rows), milliseconds(values), drawn, shade=report.warmup, hints=hints)
    return figure(title, drawn, plot)


def _waiting_plot(report: Report, rows: Rows) -> str:
    points = [((begins + ends) / 2, float(row.waiting)) for begins, ends, row in rows]
    drawn = [Line("waiting", "third", points)]
    most = max(value for _, value in points)
    title = "Requests waiting for a connection"
    hints = _hints(rows, lambda row: f"{row.waiting:,} waiting")
    y = linear(0, most * 1.08, lambda value: f"{value:,.0f}")
    return figure(title, drawn, lines(title, time_axis(rows), y, drawn, shade=report.warmup, hints=hints))


def _durations(report: Report) -> str:
    rows = [
        ("latency", report.latency),
        ("service", report.service),
        ("waited for a connection", report.waited),
        ("own lateness", report.late),
        ("time to failure", report.failures),
    ]
    body = [
        [
            escape(name),
            *(words.duration(value) for value in each.percentiles.values()),
            words.duration(each.maximum),
        ]
        for name, each in rows
        if each.count
    ]
    headings = ["", *(f"p{each}" for each in report.latency.percentiles), "max"]
    return f"<h2>How long it took</h2>{table(headings, body)}"


def _requests(report: Report) -> str:
    total = sum(each.count for each in report.requests)
    body = [
        [
            escape(each.name),
            f"{each.count:,}",
            words.share(each.count, total),
            _count(sum(each.errors.values())),
            *(words.duration(each.latency.percentiles[key]) for key in ("50", "95", "99")),
            words.duration(each.latency.maximum),
            words.duration(each.service.percentiles["50"]),
        ]
        for each in report.requests
    ]
    headings = ["request", "count", "share", "errors", "p50", "p95", "p99", "max", "service p50"]
    return f"<h2>By request</h2>{table(headings, body)}" if body else ""


def _errors(report: Report) -> str:
    if not report.errors:
        return ""
    body = [[escape(kind), _count(count)] for kind, count in report.errors.items()]
    examples = "".join(_case(case) for case in report.examples)
    return f"<h2>Errors by kind</h2>{table(['kind', 'count'], body)}{examples}"


def _violations(report: Report) -> str:
    if not report.violating:
        return ""
    cases = "".join(_case(case) for case in report.violating)
    return (
        f"<h2>Violations, the first {len(report.violating)}</h2>"
        "<p>A user was shown something older than what the same user had been told before.</p>"
        f"{cases}"
    )


def _case(case: Case) -> str:
    facts = "".join(
        f"<li><b>{escape(each.fact)}</b>: {escape(each.expected)} expected, {escape(each.found)} found</li>"
        for each in case.contradictions
    )
    where = escape(case.request) if case.request else "not sent"
    asked = f"<p><code>{escape(case.asked)}</code></p>" if case.asked else ""
    trace = f"<p>trace <code>{case.trace_id}</code></p>" if case.trace_id else ""
    return (
        f"<details><summary>{escape(case.kind)}: {where} at {case.second:.3f} s</summary>"
        f"{f'<ul>{facts}</ul>' if facts else ''}{asked}{trace}<pre>{escape(case.detail)}</pre></details>"
    )


def _count(count: int) -> str:
    return f'<b class="bad">{count:,}</b>' if count else "0"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, prose: bool = False) -> str:
    """A table of cells that are HTML already: figures, or sentences."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    style = ' class="prose"' if prose else ""
    return (
        f'<div class="scroll"><table{style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def figure(title: str, drawn: Sequence[Line], plot: str) -> str:
    """A plot with its title and a legend of these lines."""
    legend = "".join(f'<span><i class="{line.style}"></i>{escape(line.name)}</span>' for line in drawn)
    return (
        f'<figure><figcaption>{escape(title)}<span class="legend">{legend}</span></figcaption>{plot}</figure>'
    )


def time_axis(rows: Rows) -> Axis:
    return linear(0, rows[-1][1], clock)


def clock(second: float) -> str:
    """A moment of the run as the axes say it."""
    if second < 120:
        return f"{second:g} s"
    minutes, seconds = divmod(round(second), 60)
    return f"{minutes}:{seconds:02}"


def milliseconds(values: Sequence[float]) -> Axis:
    """For milliseconds."""
    shown = [max(value, _LEAST_MS) for value in values if not math.isnan(value)] or [1.0]
    return logarithmic(min(shown), max(shown), words.duration_mark)


def _hints(rows: Rows, say: Callable[[Second], str]) -> list[Hint]:
    return [Hint(begins, ends, f"{clock(begins)}: {say(row)}") for begins, ends, row in rows]

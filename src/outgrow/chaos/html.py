"""A drill's report as one HTML page, which looks like that of `outgrow load`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from outgrow.chaos.history import Sample
from outgrow.chaos.report import Report, Second
from outgrow.load import words
from outgrow.load.html import clock, figure, milliseconds, page, table
from outgrow.load.plots import Axis, Hint, Line, Moment, linear, lines, stacks

KINDS_MAX = 5
STYLES = ("first", "second", "third", "kind1", "kind3", "kind0", "others")
TOLD = ("fault", "undo", "out", "in")


def html(report: Report) -> str:
    """The whole page."""
    return page(f"drill {report.drill}", "".join(_sections(report)))


def _sections(report: Report) -> Iterator[str]:
    verdict = "held" if report.held else "broken"
    yield (
        f"<header><h1>Drill {escape(report.drill)}</h1><p>{escape(_sentence(report.shows))}</p>"
        f"<p>{escape(_sentence(report.does))}</p></header>"
    )
    yield _tiles(report, verdict)
    for warning in report.warnings:
        yield f'<p class="warning">{escape(warning)}</p>'
    yield f"<h2>The verdict: {verdict}</h2>{_findings(report)}"
    yield f'<h2>Second by second</h2><div class="plots">{"".join(_plots(report))}</div>'
    yield f"<h2>What happened</h2>{_timeline(report)}"
    yield _answered(report)
    yield (
        f"<footer>Started {escape(report.started)}: {escape(report.scenario)}, {report.rate:g} requests a "
        f"second, {report.users:,} users, stage {escape(report.stage)}. Latency counts from the moment at "
        "which a request was meant to start. Dashed lines: red a fault, green its end or a server that is in "
        "again, orange a server that is out.</footer>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _tiles(report: Report, verdict: str) -> str:
    kept = sum(each.held for each in report.findings)
    failed = sum(report.failed.values())
    tiles = [
        ("verdict", verdict, f"{kept} of {len(report.findings)} promises", "good" if report.held else "bad"),
        ("requests", f"{report.requests:,}", f"{report.rate:g} a second", ""),
        ("failed", f"{failed:,}", words.share(failed, report.requests), ""),
        ("servers", f"{report.servers}", f"stage {report.stage}", ""),
        ("took", f"{report.seconds:.0f} s", "under load", ""),
    ]
    cells = "".join(
        f'<div class="tile {state}"><span>{name}</span><b>{escape(value)}</b>'
        f"<small>{escape(note)}</small></div>"
        for name, value, note, state in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _findings(report: Report) -> str:
    rows = [
        [escape(each.promise), "held" if each.held else '<b class="bad">broken</b>', escape(each.says)]
        for each in report.findings
    ]
    cases = "".join(
        f"<details><summary>{escape(each.promise)} The first cases</summary>"
        f"<ul>{''.join(f'<li>{escape(case)}</li>' for case in each.cases)}</ul></details>"
        for each in report.findings
        if each.cases
    )
    return table(["promise", "verdict", "figures"], rows, prose=True) + cases


def _timeline(report: Report) -> str:
    rows = [[f"{each.at:.3f} s", escape(each.node), escape(each.text)] for each in report.happenings]
    return table(["when", "who", "what"], rows, prose=True)


def _answered(report: Report) -> str:
    if not report.servers_answered:
        return ""
    rows = [[escape(name), f"{count:,}"] for name, count in report.servers_answered.items()]
    return f"<h2>Who answered</h2>{table(['server', 'requests in its log'], rows)}"


def _plots(report: Report) -> Iterator[str]:
    x = linear(0, max(len(report.series), 1), clock)
    moments = [
        Moment(each.at, each.kind, f"{each.at:.2f} s: {each.node} {each.text}")
        for each in report.happenings
        if each.kind in TOLD
    ]
    yield _latency(report.series, x, moments)
    yield _errors(report.series, x, moments)
    yield _rate(report.series, x, moments)
    if report.history.samples:
        yield _shares(report.history.samples, x, moments)


def _latency(series: Sequence[Second], x: Axis, moments: Sequence[Moment]) -> str:
    drawn = [
        Line("p50", "first", [(e.second + 0.5, e.p50 if e.answered else math.nan) for e in series]),
        Line("p99", "third", [(e.second + 0.5, e.p99 if e.answered else math.nan) for e in series]),
    ]
    y = milliseconds([value for line in drawn for _, value in line.points])
    hints = [
        Hint(
            e.second,
            e.second + 1,
            f"{e.second:g} s: p50 {words.duration(e.p50)}, p99 {words.duration(e.p99)}",
        )
        for e in series
    ]
    return figure("Latency", drawn, lines("Latency", x, y, drawn, hints=hints, moments=moments))


def _errors(series: Sequence[Second], x: Axis, moments: Sequence[Moment]) -> str:
    title = "Failed requests a second"
    kinds = list(dict.fromkeys(kind for each in series for kind in each.errors))
    if not kinds:
        return figure(title, [], '<p class="nothing">None.</p>')
    named = kinds[:KINDS_MAX]
    columns = [
        (e.second, e.second + 1, [*(float(e.errors.get(kind, 0)) for kind in named), _others(e, named)])
        for e in series
    ]
    styles = [*(f"kind{number}" for number in range(len(named))), "others"]
    y = linear(0, max(sum(heights) for *_, heights in columns) * 1.08, lambda value: f"{value:,g}")
    legend = [Line(kind, style, []) for kind, style in zip(named, styles, strict=False)]
    return figure(title, legend, stacks(title, x, y, styles, columns, moments=moments))


def _others(second: Second, named: Sequence[str]) -> float:
    return float(sum(count for kind, count in second.errors.items() if kind not in named))


def _rate(series: Sequence[Second], x: Axis, moments: Sequence[Moment]) -> str:
    drawn = [Line("answered", "first", [(e.second + 0.5, float(e.answered)) for e in series])]
    y = linear(0, max((e.answered for e in series), default=1) * 1.08, lambda value: f"{value:,.0f}")
    title = "Answers a second"
    return figure(title, drawn, lines(title, x, y, drawn, moments=moments))


def _shares(samples: Sequence[Sample], x: Axis, moments: Sequence[Moment]) -> str:
    """What the balancers together have sent each server, second by second."""
    names = sorted({each.server for each in samples})
    drawn = [
        Line(name, STYLES[number % len(STYLES)], _sent(samples, name)) for number, name in enumerate(names)
    ]
    most = max((value for line in drawn for _, value in line.points), default=1.0)
    title = "Requests a second sent to each server"
    y = linear(0, most * 1.08, lambda value: f"{value:,.0f}")
    return figure(title, drawn, lines(title, x, y, drawn, moments=moments))


def _sent(samples: Sequence[Sample], server: str) -> list[tuple[float, float]]:
    totals: dict[int, float] = {}
    last: dict[str, int] = {}
    for each in samples:
        if each.server == server:
            sent = max(each.requests - last.get(each.balancer, each.requests), 0)
            totals[int(each.at)] = totals.get(int(each.at), 0.0) + sent
            last[each.balancer] = each.requests
    return [(second + 0.5, value) for second, value in sorted(totals.items())]

"""Plots as inline SVG: no script and no file beside the page. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 30
_INNER_WIDTH = WIDTH - LEFT - RIGHT
_INNER_HEIGHT = HEIGHT - TOP - BOTTOM


class Line(NamedTuple):
    """A line of a plot. `style` is its class in the style sheet; where a value is nan the line is cut."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """Value -> place from 0 to 1, and the values that get a label."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


class Moment(NamedTuple):
    """Something that happened at this place of the x axis. `style` is its class in the style sheet."""

    at: float
    style: str
    text: str


class Hint(NamedTuple):
    """What a pointer over this stretch of the x axis is told."""

    begins: float
    ends: float
    text: str


def linear(least: float, most: float, label: Callable[[float], str], count: int = 5) -> Axis:
    """An axis with equal steps, at round values."""
    most = most if most > least else least + 1
    step = _round_step((most - least) / count)
    first = math.ceil(least / step - 1e-9)
    values = [number * step for number in range(first, math.floor(most / step + 1e-9) + 1)]
    return Axis(lambda value: (value - least) / (most - least), [(value, label(value)) for value in values])


def logarithmic(least: float, most: float, label: Callable[[float], str]) -> Axis:
    """An axis on which each tenfold is as long as the next; at least one tenfold."""
    low = math.floor(math.log10(least))
    high = max(math.ceil(math.log10(most) - 1e-9), low + 1)
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    values = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    ticks = [(value, label(value)) for value in values if value <= 10.0**high * 1.0001]
    return Axis(lambda value: (math.log10(max(value, 10.0**low)) - low) / (high - low), ticks)


def nines(most: float) -> Axis:
    """An axis of percentiles: 90, 99 and 99.9 are equally far apart. `most` is a share below 1."""
    length = max(-math.log10(1 - most), 1.0)
    marks = ((0.0, "0"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"))
    ticks = [(share, text) for share, text in marks if -math.log10(1 - share) <= length * 1.0001]
    return Axis(lambda share: min(-math.log10(max(1 - share, 1e-12)) / length, 1.0), ticks)


def lines(
    title: str,
    x: Axis,
    y: Axis,
    drawn: Sequence[Line],
    *,
    shade: float = 0.0,
    hints: Sequence[Hint] = (),
    moments: Sequence[Moment] = (),
) -> str:
    """A plot of lines. Up to `shade` on the x axis is the warm-up."""
    body = [_shade(x, shade), _grid(x, y), _moments(x, moments)]
    return _svg(title, [*body, *(_line(x, y, line) for line in drawn), _hints(x, hints)])


def stacks(
    title: str,
    x: Axis,
    y: Axis,
    styles: Sequence[str],
    columns: Sequence[tuple[float, float, Sequence[float]]],
    *,
    shade: float = 0.0,
    hints: Sequence[Hint] = (),
    moments: Sequence[Moment] = (),
) -> str:
    """A plot of columns (begins, ends, a height for each style), stacked."""
    bars: list[str] = []
    for begins, ends, heights in columns:
        base = 0.0
        for style, height in zip(styles, heights, strict=True):
            if height:
                bars.append(_bar(x, y, begins, ends, base, base + height, style))
                base += height
    return _svg(title, [_shade(x, shade), _grid(x, y), _moments(x, moments), *bars, _hints(x, hints)])


def _svg(title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(body)}</svg>'
    )


def _grid(x: Axis, y: Axis) -> str:
    parts: list[str] = []
    for value, label in y.ticks:
        place = _y(y, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place}" y2="{place}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for value, label in x.ticks:
        place = _x(x, value)
        anchor = "end" if place > WIDTH - RIGHT - 14 else "middle"
        parts.append(
            f'<text x="{place}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    return "".join(parts)


def _line(x: Axis, y: Axis, line: Line) -> str:
    return "".join(
        f'<polyline class="line {line.style}" points="{" ".join(places)}"/>'
        for places in _pieces(x, y, line.points)
    )


def _pieces(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> Iterator[list[str]]:
    """The line, cut where there is no value; a value alone is a dot."""
    for known, piece in groupby(points, key=lambda point: not math.isnan(point[1])):
        places = [f"{_x(x, across)},{_y(y, up)}" for across, up in piece] if known else []
        if places:
            yield places if len(places) > 1 else places * 2


def _bar(x: Axis, y: Axis, begins: float, ends: float, low: float, high: float, style: str) -> str:
    left, right, top, bottom = _x(x, begins), _x(x, ends), _y(y, high), _y(y, low)
    width, height = max(right - left - 0.6, 0.8), max(bottom - top, 0.5)
    return f'<rect class="bar {style}" x="{left}" y="{top}" width="{width:.1f}" height="{height:.1f}"/>'


def _shade(x: Axis, until: float) -> str:
    if until <= 0:
        return ""
    width = round(_x(x, until) - LEFT, 1)
    return f'<rect class="shade" x="{LEFT}" y="{TOP}" width="{width}" height="{_INNER_HEIGHT}"/>'


def _moments(x: Axis, moments: Sequence[Moment]) -> str:
    return "".join(
        f'<line class="moment {each.style}" x1="{_x(x, each.at)}" x2="{_x(x, each.at)}" y1="{TOP}" '
        f'y2="{HEIGHT - BOTTOM}"><title>{escape(each.text)}</title></line>'
        for each in moments
    )


def _hints(x: Axis, hints: Sequence[Hint]) -> str:
    return "".join(
        f'<rect class="hint" x="{_x(x, hint.begins)}" y="{TOP}" '
        f'width="{max(_x(x, hint.ends) - _x(x, hint.begins), 1):.1f}" height="{_INNER_HEIGHT}">'
        f"<title>{escape(hint.text)}</title></rect>"
        for hint in hints
    )


def _x(axis: Axis, value: float) -> float:
    return round(LEFT + _INNER_WIDTH * min(max(axis.place(value), 0.0), 1.0), 1)


def _y(axis: Axis, value: float) -> float:
    return round(TOP + _INNER_HEIGHT * (1 - min(max(axis.place(value), 0.0), 1.0)), 1)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)

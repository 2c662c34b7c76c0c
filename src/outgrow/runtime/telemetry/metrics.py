"""Counters, gauges and histograms, and the text in which Prometheus reads them.

Light on purpose: an observation is one dictionary look-up and one addition on the event loop, with
no lock. Text format 0.0.4 and OpenMetrics 1.0 are written from the same families, and JSON for the fleet's
own dashboard, which asks every second: a fortieth of the text's CPU.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

SERIES_MAX = 1000
"""Series that one family may have. What comes after is counted under "other", so that neither a
caller nor a careless cache key can fill the memory."""

OTHER = "other"
LABEL_LENGTH_MAX = 200
TEXT = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]
Sample = tuple[str, str, float]
"""Suffix of the name, a label of its own ('le="0.1"') or "", value."""


class Series(Protocol):
    """What one set of label values has counted."""

    def samples(self) -> Iterator[Sample]: ...

    def figures(self) -> list[float]: ...


class Number:
    """One series of a counter or a gauge: add to `value`, or set it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def samples(self) -> Iterator[Sample]:
        yield "", "", self.value

    def figures(self) -> list[float]:
        return [self.value]


class Histogram:
    """One series of a histogram: how many observations each bucket got, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self) -> Iterator[Sample]:
        """Each bucket with all below it, as the format wants it, then the count and the sum."""
        count = 0
        for bound, inside in zip((*self.bounds, float("inf")), self.counts, strict=True):
            count += inside
            yield "_bucket", f'le="{_number(bound)}"', count
        yield "_count", "", count
        yield "_sum", "", self.sum

    def figures(self) -> list[float]:
        """What each bucket alone has got, then the sum."""
        return [*self.counts, self.sum]


S = TypeVar("S", bound=Series)


class Told(msgspec.Struct):
    """A family as JSON: each series with its label values and its figures."""

    kind: Kind
    labels: tuple[str, ...]
    bounds: tuple[float, ...]
    series: list[tuple[tuple[str, ...], list[float]]]


class Family(Generic[S]):
    """All series of one name. `name` is the name in the text format: a counter's ends in _total."""

    __slots__ = ("_bounds", "_make", "_series", "help", "kind", "labels", "name")

    def __init__(
        self,
        name: str,
        kind: Kind,
        help: str,
        labels: tuple[str, ...],
        make: Callable[[], S],
        bounds: tuple[float, ...] = (),
    ) -> None:
        self.name = name
        self.kind: Kind = kind
        self.help = help
        self.labels = labels
        self._make = make
        self._bounds = bounds
        self._series: dict[tuple[str, ...], S] = {}

    def series(self, *values: str) -> S:
        """The series with these label values, made on first use."""
        found = self._series.get(values)
        return found if found is not None else self._add(values)

    def _add(self, values: tuple[str, ...]) -> S:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {values}")
        if len(self._series) >= SERIES_MAX:
            values = (OTHER,) * len(self.labels)
        return self._series.setdefault(values, self._make())

    @property
    def full(self) -> bool:
        """Whether new label values are counted under "other" from now on."""
        return len(self._series) >= SERIES_MAX

    def told(self) -> Told:
        """The family as JSON has it."""
        series = [(values, series.figures()) for values, series in self._series.items()]
        return Told(self.kind, self.labels, self._bounds, series)

    def clear(self) -> None:
        """Forget every series: for gauges that are read anew at each scrape."""
        self._series.clear()

    def lines(self, openmetrics: bool) -> Iterator[str]:
        """The family as text. OpenMetrics names a counter's family without _total."""
        family = self.name.removesuffix("_total") if openmetrics and self.kind == "counter" else self.name
        yield f"# HELP {family} {_escape_help(self.help, openmetrics)}\n"
        yield f"# TYPE {family} {self.kind}\n"
        for values, series in self._series.items():
            labels = ",".join(
                f'{name}="{_escape(value)}"' for name, value in zip(self.labels, values, strict=True)
            )
            for suffix, own, value in series.samples():
                inside = f"{labels},{own}" if labels and own else labels or own
                yield (
                    f"{self.name}{suffix}{{{inside}}} {_number(value)}\n"
                    if inside
                    else (f"{self.name}{suffix} {_number(value)}\n")
                )


class Registry:
    """The families of one process. `before` is called ahead of every rendering."""

    def __init__(self) -> None:
        self.families: dict[str, Family[Number] | Family[Histogram]] = {}
        self.before: list[Callable[[], None]] = []

    def counter(self, name: str, help: str, *labels: str) -> Family[Number]:
        """A figure that only rises. Its name ends in _total."""
        return self._number_family(name, "counter", help, labels)

    def gauge(self, name: str, help: str, *labels: str) -> Family[Number]:
        """A figure that rises and falls."""
        return self._number_family(name, "gauge", help, labels)

    def histogram(self, name: str, help: str, bounds: tuple[float, ...], *labels: str) -> Family[Histogram]:
        """A distribution over fixed buckets."""
        family = Family(name, "histogram", help, labels, lambda: Histogram(bounds), bounds)
        self._add(family)
        return family

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body, in JSON or OpenMetrics where the caller accepts it."""
        for refresh in self.before:
            refresh()
        if JSON in accept:
            return JSON, msgspec.json.encode({name: each.told() for name, each in self.families.items()})
        openmetrics = "application/openmetrics-text" in accept
        text = "".join(line for family in self.families.values() for line in family.lines(openmetrics))
        if openmetrics:
            return OPENMETRICS, f"{text}# EOF\n".encode()
        return TEXT, text.encode()

    def _number_family(self, name: str, kind: Kind, help: str, labels: tuple[str, ...]) -> Family[Number]:
        family = Family(name, kind, help, labels, Number)
        if not labels:
            family.series()  # a figure without labels exists from the start, as 0
        self._add(family)
        return family

    def _add(self, family: Family[Number] | Family[Histogram]) -> None:
        if family.name in self.families:
            raise ValueError(f"the metric {family.name} exists already")
        self.families[family.name] = family


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _escape(value: str) -> str:
    # A lone surrogate (an undecodable byte of a path) has no UTF-8 form.
    text = value[:LABEL_LENGTH_MAX].encode("utf-8", "replace").decode()
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str, openmetrics: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped

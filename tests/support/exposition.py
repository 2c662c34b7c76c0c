"""Reads Prometheus' text as strictly as its specification allows: any doubt is an error.

https://prometheus.io/docs/instrumenting/exposition_formats/ and OpenMetrics 1.0, with the rules that
`promtool check metrics` adds (a counter's name ends in _total, every family has help and type, units
are spelled out).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\+Inf|-?[0-9.e+-]+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    name: str
    kind: str
    help: str
    samples: dict[tuple[str, Labels], float]


def parse(text: str, *, openmetrics: bool = False) -> dict[str, Family]:
    """The families by name. Raises AssertionError at the first thing that is not right."""
    lines = text.split("\n")
    assert lines.pop() == "", "the text ends with a line break"
    if openmetrics:
        assert lines.pop() == "# EOF"
    families: dict[str, Family] = {}
    family: Family | None = None
    for line in lines:
        if line.startswith("# HELP "):
            name, _, meaning = line.removeprefix("# HELP ").partition(" ")
            assert re.fullmatch(_NAME, name)
            assert name not in families, f"{name} comes twice"
            assert meaning
            family = Family(name, "", meaning, {})
        elif line.startswith("# TYPE "):
            assert family is not None
            name, _, kind = line.removeprefix("# TYPE ").partition(" ")
            assert (name, family.kind) == (family.name, ""), line
            assert kind in _SUFFIXES
            family = families[name] = family._replace(kind=kind)
        else:
            assert family is not None, f"a sample before its family: {line}"
            assert family.kind, f"a sample before its type: {line}"
            _sample(line, family, openmetrics)
    for each in families.values():
        _check(each, openmetrics)
    return families


def _sample(line: str, family: Family, openmetrics: bool) -> None:
    match = _SAMPLE.fullmatch(line)
    assert match is not None, line
    name, inside, value = match.groups()
    suffixes = _SUFFIXES[family.kind]
    if family.kind == "counter" and not openmetrics:
        suffixes = ("",)  # in the older format the family's own name ends in _total
    assert name in {family.name + suffix for suffix in suffixes}, line
    key = (name, tuple(_labels(inside or "", line)))
    assert key not in family.samples, f"this series comes twice: {line}"
    family.samples[key] = float(value.replace("+Inf", "inf"))


def _labels(text: str, line: str) -> Iterator[tuple[str, str]]:
    names = set()
    while text:
        match = _LABEL.match(text)
        assert match is not None, line
        name, value, _ = match.groups()
        assert name not in names
        assert not name.startswith("__")
        names.add(name)
        yield name, re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], value)
        text = text[match.end() :]


def _check(family: Family, openmetrics: bool) -> None:
    if family.kind == "counter":
        assert family.name.endswith("_total") is not openmetrics, family.name
        assert all(value >= 0 for value in family.samples.values())
    if family.kind == "histogram":
        _check_histogram(family)
    assert not re.search(r"_(ms|us|kb|mb|millis|percent)(_|$)", family.name), "base units, please"


def _check_histogram(family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (name, labels), value in family.samples.items():
        if name.endswith("_bucket"):
            bound = next(text for key, text in labels if key == "le")
            rest = tuple(label for label in labels if label[0] != "le")
            series.setdefault(rest, []).append((float(bound.replace("+Inf", "inf")), value))
    for labels, buckets in series.items():
        bounds, counts = zip(*buckets, strict=True)
        assert list(bounds) == sorted(set(bounds)), "bounds rise"
        assert bounds[-1] == float("inf"), "the last bucket holds everything"
        assert list(counts) == sorted(counts), "buckets are cumulative"
        assert family.samples[f"{family.name}_count", labels] == counts[-1]
        assert family.samples[f"{family.name}_sum", labels] >= 0

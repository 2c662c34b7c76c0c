"""A scenario file -> Scenario, or every mistake in it at once, each with its line.

text ─► tomllib ─► each value checked against profile.py ─► rules.py ─► Scenario
                                 mistakes ─► lines.py ─► ScenarioError
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from outgrow.errors import Misuse, Problem, ScenarioError
from outgrow.load import rules
from outgrow.load.lines import line_of, lines
from outgrow.load.profile import DURATION, Scenario, Section

NAME = "load.toml"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*")
_SHOWN_MAX = 60


def parse_file(path: str | os.PathLike[str]) -> Scenario:
    """The scenario in a file. Raises Misuse when it cannot be read, ScenarioError when it is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Misuse(
            f"{path} does not exist", hint="docs/load.md tells how to write a scenario; --scenario names it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} cannot be read: {error}", hint="it must be a text file in UTF-8") from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str = NAME) -> Scenario:
    """The scenario in a text. Raises ScenarioError with every mistake: its line, path and remedy."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(source, [Problem("syntax", str(error), hint="https://toml.io")]) from error
    reading = _Reading()
    scenario = cast("Scenario | None", reading.section(document, Scenario, ""))
    problems = reading.problems
    if not problems and scenario is not None:
        problems = rules.contradictions(scenario)
    if problems or scenario is None:
        raise ScenarioError(source, _in_order(problems, text))
    return scenario


def seconds(value: object) -> float | None:
    """A duration as seconds: 30, 0.5, "250ms", "30s", "5m", "1h"; None when it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) * _UNITS[found[2]] if found else None


class _Wrong(Exception):
    """One value that is not accepted."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint


class _Reading:
    """One pass over the document, collecting the problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def section(self, table: Mapping[str, Any], kind: type[Section], path: str) -> Section | None:
        """One table as the Section that describes it; None when it lacks a key that it needs."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        types = get_type_hints(kind, include_extras=True)
        good: dict[str, Any] = {}
        for key, raw in table.items():
            place = f"{path}.{key}" if path else key
            with self._noting(place):
                if key not in fields:
                    raise _Wrong(f"there is no such key{f' in [{path}]' if path else ''}", _near(key, fields))
                name = fields[key].name
                good[name] = self._value(raw, types[name], place)
        absent = [key for key, field in fields.items() if field.required and key not in table]
        self.problems += [Problem(path, f"lacks {key}") for key in absent]
        wrong = any(field.required and field.name not in good for field in fields.values())
        return None if wrong else kind(**good)

    @contextmanager
    def _noting(self, place: str) -> Iterator[None]:
        try:
            yield
        except _Wrong as wrong:
            self.problems.append(Problem(place, wrong.message, hint=wrong.hint))

    def _value(self, raw: Any, kind: Any, place: str) -> Any:
        section = _section(kind)
        if section is not None:
            return self.section(_table(raw, place), section, place)
        arguments = get_args(kind)
        inner = _section(arguments[-1]) if get_origin(kind) is dict else None
        if inner is not None:
            places = {name: f"{place}.{name}" for name in _table(raw, place)}
            return {name: self._entry(raw[name], inner, where) for name, where in places.items()}
        inner = _section(arguments[0]) if get_origin(kind) is tuple and arguments else None
        if inner is not None:
            return self._sections(raw, inner, place)
        return _converted(raw, kind)

    def _sections(self, raw: Any, kind: type[Section], place: str) -> tuple[Any, ...]:
        if not isinstance(raw, list):
            raise _Wrong(f"must be an array of tables, not {_shown(raw)}", f"write [[{place}]]")
        return tuple(self._entry(each, kind, f"{place}[{number}]") for number, each in enumerate(raw))

    def _entry(self, raw: Any, kind: type[Section], place: str) -> Section | None:
        with self._noting(place):
            return self.section(_table(raw, place), kind, place)
        return None


def _section(kind: Any) -> type[Section] | None:
    if get_origin(kind) in (Union, UnionType):  # a table that may be absent
        kind = get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _table(raw: Any, place: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _Wrong(f"must be a table, not {_shown(raw)}", f"write [{place}] on a line of its own")
    return raw


def _converted(raw: Any, kind: Any) -> Any:
    metas = [each for each in _metas(kind) if each.title]
    value = seconds(raw) if any(DURATION in (each.extra or {}) for each in metas) else raw
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        words = metas[0].title if metas else {bool: "true or false"}.get(kind, str(error))
        raise _Wrong(f"must be {words}, not {_shown(raw)}") from None


def _metas(kind: Any) -> Iterator[msgspec.Meta]:
    """What a type says of itself, also inside `X | None`."""
    if get_origin(kind) is Annotated:
        yield from (each for each in kind.__metadata__ if isinstance(each, msgspec.Meta))
    else:
        for each in get_args(kind):
            yield from _metas(each)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_MAX else "this long value"


def _near(key: str, known: Mapping[str, Any]) -> str:
    found = difflib.get_close_matches(key, list(known), n=1, cutoff=0.55)
    return f'did you mean "{found[0]}"?' if found else f"known: {', '.join(known)}"


def _in_order(problems: list[Problem], text: str) -> list[Problem]:
    found = lines(text)
    located = [dataclasses.replace(problem, line=line_of(problem.path, found)) for problem in problems]
    return sorted(located, key=lambda problem: problem.line or 0)

"""outgrow.toml -> Topology, or every mistake in it at once, each with its line.

text ─► tomllib ─► ${NAME} filled in ─► each value checked by model.py ─► rules.py ─► complete.py ─► Topology
                                                          mistakes ─► lines.py ─► TopologyError
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import msgspec

from outgrow.errors import Misuse, Problem, TopologyError
from outgrow.topology import rules
from outgrow.topology.complete import complete
from outgrow.topology.lines import line_of, lines
from outgrow.topology.model import STAGES, Section, Topology, may_be_shown
from outgrow.topology.values import DURATION, DURATION_TEXT, LIFETIME
from outgrow.topology.wording import accepted, alternative, nearest, shown

NAME = "outgrow.toml"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(DURATION_TEXT)
_VARIABLE = re.compile(r"\$\{(\w*)\}")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def parse_file(path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Topology:
    """The topology in a file. `environment` fills ${NAME}: the process's own unless given.

    Raises Misuse when the file cannot be read, TopologyError when it is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Misuse(
            f"{path} does not exist", hint="`outgrow new DIR` makes an application to start from"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} cannot be read: {error}", hint="it must be a text file in UTF-8") from error
    return parse(text, source=str(path), environment=os.environ if environment is None else environment)


def parse(text: str, *, source: str = NAME, environment: Mapping[str, str] | None = None) -> Topology:
    """The topology in a text. `environment` fills ${NAME}: there is none unless given.

    Raises TopologyError with every mistake: its line, its path and the nearest right spelling.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers and arrays beyond all measure
        raise TopologyError(source, [_syntax(text, error)]) from error
    reading = _Reading(environment or {})
    topology = cast("Topology", reading.section(document, Topology, ""))
    wrong = {problem.path for problem in reading.problems}
    problems = reading.problems + rules.contradictions(topology, reading.given, wrong)
    if problems:
        raise TopologyError(source, _in_order(problems, text))
    return complete(topology)


def seconds(value: object) -> float | None:
    """A duration as seconds: 30, 0.5, "250ms", "30s", "5m", "1h", "1d"; None when it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    found = _DURATION.match(value) if isinstance(value, str) else None
    return float(found[1]) * _UNITS[found[2]] if found else None


class _Wrong(Exception):
    """One value that is not accepted."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint


class _Reading:
    """One pass over the document. It collects the problems; what is wrong keeps its default."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.given: set[str] = set()
        self._environment = environment

    def section(self, table: Mapping[str, Any], kind: type[Section], path: str) -> Section:
        """One table of the document as the Section that describes it."""
        types = get_type_hints(kind, include_extras=True)
        good = {}
        for key, raw in table.items():
            place = f"{path}.{key}" if path else key
            self.given.add(place)
            with self._noting(place):
                if key not in types:
                    raise _unknown(key, path, types)
                good[key] = self._value(raw, types[key], place)
        return kind(**good)

    @contextmanager
    def _noting(self, place: str) -> Iterator[None]:
        try:
            yield
        except _Wrong as wrong:
            self.problems.append(Problem(place, wrong.message, hint=wrong.hint))

    def _value(self, raw: Any, kind: Any, place: str) -> Any:
        bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if get_origin(bare) is tuple:
            return self._array(raw, get_args(bare)[0], place)
        is_section = _is_section(bare)
        if not is_section and get_origin(bare) is not dict:
            return self._scalar(raw, kind, place)
        if not isinstance(raw, dict):
            raise _Wrong(f"must be a table, not {shown(raw)}", f"write [{place}] on a line of its own")
        if is_section:
            return self.section(raw, bare, place)
        return self._names(raw, get_args(bare), place)

    def _array(self, raw: Any, kind: Any, place: str) -> tuple[Any, ...]:
        """Each element that is right. Their places count from 1, as a reader does."""
        if not isinstance(raw, list):
            way = f"write [[{place}]] on a line of its own" if _is_section(kind) else "put it between [ and ]"
            raise _Wrong(f"must be an array, not {shown(raw)}", way)
        good = []
        for number, element in enumerate(raw, 1):
            with self._noting(f"{place}.{number}"):
                good.append(self._value(element, kind, f"{place}.{number}"))
        return tuple(good)

    def _names(self, table: Mapping[str, Any], kinds: tuple[Any, ...], place: str) -> dict[str, Any]:
        name_kind, kind = kinds
        good = {}
        for name, raw in table.items():
            with self._noting(f"{place}.{name}"):
                _converted(name, name_kind, f"the name must be {_accepted(name_kind)}")
                good[name] = self._scalar(raw, kind, f"{place}.{name}")
        return good

    def _scalar(self, raw: Any, kind: Any, place: str) -> Any:
        value = _VARIABLE.sub(self._variable, raw) if isinstance(raw, str) else raw
        if place == "stage":
            return _stage(value)
        if _is_duration(kind) and (duration := seconds(value)) is not None:
            value = duration
        found = f", not {shown(raw)}" if may_be_shown(place) else ""
        return _converted(value, kind, f"must be {_accepted(kind)}{found}", _hint(raw, kind))

    def _variable(self, found: re.Match[str]) -> str:
        name = found[1]
        if not name:
            raise _Wrong("${} names no variable", "write ${NAME}")
        if name not in self._environment:
            raise _Wrong(f"the environment has no variable {name}", f"export {name}=...")
        return self._environment[name]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _is_duration(kind: Any) -> bool:
    """Whether it, or one of its alternatives, is counted in seconds."""
    told = getattr(kind, "__metadata__", ())
    return DURATION in told or LIFETIME in told or any(map(_is_duration, get_args(kind)))


def _converted(value: Any, kind: Any, message: str, hint: str = "") -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise _Wrong(message, hint) from None


def _stage(value: Any) -> str:
    if type(value) is int and 1 <= value <= len(STAGES):
        return STAGES[value - 1]
    if value in STAGES:
        return str(value)
    hint = nearest(str(value), STAGES) or f"1 to {len(STAGES)}, or a name: {', '.join(STAGES)}"
    raise _Wrong(f"there is no stage {shown(value)}", hint)


def _accepted(kind: Any) -> str:
    return accepted(msgspec.json.schema(kind))


def _hint(raw: Any, kind: Any) -> str:
    """The nearest right spelling, or what a text of a certain form is."""
    schema = alternative(msgspec.json.schema(kind))
    if "enum" in schema:
        return nearest(str(raw), [value for value in schema["enum"] if isinstance(value, str)])
    if "pattern" not in schema or "examples" not in schema:
        return ""
    several = len(schema["examples"]) > 1 and nearest(str(raw), schema["examples"])
    return several or str(schema.get("description", ""))


def _unknown(key: str, path: str, types: Mapping[str, Any]) -> _Wrong:
    where = f" in [{path}]" if path else ""
    hint = nearest(key, types) or _elsewhere(key) or f"known: {', '.join(types)}"
    return _Wrong(f"there is no such key{where}", hint)


def _elsewhere(key: str) -> str:
    """The section that has this key: in TOML a key belongs to the last header above it."""
    if key in Topology.__struct_fields__:
        return "it belongs at the top, above the first [section]"
    sections = [name for name in Topology.__struct_fields__ if key in _fields(name)]
    return f"it belongs in [{'] or ['.join(sections)}]" if sections else ""


def _fields(section: str) -> tuple[str, ...]:
    return getattr(getattr(Topology(), section), "__struct_fields__", ())


def _syntax(text: str, error: Exception) -> Problem:
    message = str(error)
    found = _PLACE.search(message)
    line = int(found[1] or text.count("\n") + 1) if found else None
    message = message[: found.start()] if found else message
    return Problem(
        "syntax", message[:1].lower() + message[1:], line, "https://toml.io tells how TOML is written"
    )


def _in_order(problems: list[Problem], text: str) -> list[Problem]:
    """The problems with their lines, in the order of the file."""
    found = lines(text)
    located = [dataclasses.replace(problem, line=line_of(problem.path, found)) for problem in problems]
    return sorted(located, key=lambda problem: problem.line or 0)

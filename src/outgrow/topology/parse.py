"""outgrow.toml -> Topology, or every mistake in it at once, each with its line.

text ─► tomllib ─► ${NAME} filled in ─► each value checked against model.py ─► rules.py ─► Topology
           └─ the lines of the keys, from a scan of the text, for the messages
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from outgrow.errors import Misuse, Problem, TopologyError
from outgrow.topology import rules
from outgrow.topology.model import STAGES, Topology

NAME = "outgrow.toml"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")
_VARIABLE = re.compile(r"\$\{(\w*)\}")
_HEADER = re.compile(r"^\s*\[\[?\s*([\w.\-\"' ]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([\w.\-\"']+(?:\s*\.\s*[\w\-\"']+)*)\s*=")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)|at end of document")


def parse_file(path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Topology:
    """The topology in a file. Raises Misuse when it cannot be read, TopologyError when it is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Misuse(
            f"{path} does not exist", hint="`outgrow new DIR` makes an application to start from"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} cannot be read: {error}") from error
    return parse(text, source=str(path), environment=environment)


def parse(text: str, *, source: str = NAME, environment: Mapping[str, str] | None = None) -> Topology:
    """The topology in a text. `environment` fills ${NAME} (the process's own by default).

    Raises TopologyError with every mistake: its line, its path and the nearest right spelling.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(source, [_syntax(text, error)]) from error
    reading = _Reading(_lines(text), os.environ if environment is None else environment)
    reading.table(document, Topology, "")
    topology = None
    if not reading.problems:
        topology = msgspec.convert(document, Topology)
        for problem in rules.check(topology, reading.given):
            reading.problems.append(dataclasses.replace(problem, line=reading.line(problem.path)))
    if reading.problems or topology is None:
        raise TopologyError(source, sorted(reading.problems, key=lambda problem: problem.line or 0))
    return rules.complete(topology)


def seconds(value: object) -> float | None:
    """A duration as seconds: 30, 0.5, "250ms", "30s", "5m", "1h", "1d"; None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    found = _DURATION.match(value) if isinstance(value, str) else None
    return float(found[1]) * _UNITS[found[2]] if found else None


class _Reading:
    """One pass over the document: it changes values in place and collects the problems."""

    def __init__(self, lines: Mapping[str, int], environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.given: set[str] = set()
        self._lines = lines
        self._environment = environment

    def line(self, path: str) -> int | None:
        """The line of a key, or of the table that it should stand in."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path.rpartition(".")[0]
        return None

    def table(self, table: dict[str, Any], kind: type[msgspec.Struct], path: str) -> None:
        """Check every key of one table against the Struct that describes it."""
        types = get_type_hints(kind, include_extras=True)
        for key in list(table):
            place = f"{path}.{key}" if path else key
            self.given.add(place)
            if key not in types:
                self._unknown(place, key, types)
            elif isinstance(types[key], type) and issubclass(types[key], msgspec.Struct):
                if isinstance(table[key], dict):
                    self.table(table[key], types[key], place)
                else:
                    self._tell(place, f"must be a table: write [{place}] on a line of its own")
            else:
                table[key] = self._value(table[key], types[key], place)

    def _value(self, value: Any, kind: Any, place: str) -> Any:
        before = len(self.problems)
        value = self._filled(value, place)
        if len(self.problems) > before:
            return value
        if place == "stage":
            return self._stage(value)
        if place.endswith("timeout"):
            duration = seconds(value)
            if duration is None or duration <= 0:
                self._tell(place, f'must be a duration like "30s" or "5m", not {_shown(value)}')
                return 1.0
            return duration
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self._tell(place, *_explain(error, value, kind))
        return value

    def _stage(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= len(STAGES):
            return STAGES[value - 1]
        if value in STAGES:
            return str(value)
        self._tell("stage", f"there is no stage {_shown(value)}", nearest(str(value), STAGES))
        return STAGES[0]

    def _filled(self, value: Any, place: str) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(each, f"{place}.{key}") for key, each in value.items()}
        if not isinstance(value, str):
            return value

        def fill(found: re.Match[str]) -> str:
            name = found[1]
            if name not in self._environment:
                self._tell(place, f"the environment has no variable {name}", f"export {name}=...")
                return ""
            return self._environment[name]

        return _VARIABLE.sub(fill, value)

    def _unknown(self, place: str, key: str, types: Mapping[str, Any]) -> None:
        where = place.rpartition(".")[0]
        self._tell(
            place,
            f"there is no such key{f' in [{where}]' if where else ''}",
            nearest(key, types) or f"known: {', '.join(types)}",
        )

    def _tell(self, place: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(place, message, self.line(place), hint))


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean "x"?', or nothing when no known word is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f'did you mean "{found[0]}"?' if found else ""


def _explain(error: msgspec.ValidationError, value: Any, kind: Any) -> tuple[str, str]:
    """What msgspec found, in the words of the file's author."""
    schema = msgspec.json.schema(kind)
    allowed = schema.get("enum")
    if allowed:
        names = ", ".join(f'"{each}"' for each in allowed)
        return f"must be one of {names}, not {_shown(value)}", nearest(str(value), map(str, allowed))
    text = str(error)
    description = schema.get("description") or next(
        (part["description"] for part in schema.get("anyOf", ()) if "description" in part), ""
    )
    if text.startswith("Expected `str` matching regex"):
        return f"{_shown(value)} has the wrong form", description
    message = text[0].lower() + text[1:]
    return f"{message.replace('`', '')} (it is {_shown(value)})", description


def _shown(value: Any) -> str:
    """A value as the file would have it; one that may hold a password only by its kind."""
    if isinstance(value, str):
        return "this text" if "://" in value or len(value) > 60 else f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _syntax(text: str, error: tomllib.TOMLDecodeError) -> Problem:
    found = _AT_LINE.search(str(error))
    line = int(found[1]) if found and found[1] else text.count("\n") + 1
    message = str(error)[: found.start()].strip() if found else str(error)
    return Problem("syntax", message[0].lower() + message[1:], line, "see https://toml.io")


def _lines(text: str) -> dict[str, int]:
    """The line on which each key and each table begins. tomllib, which tells no lines, has checked the syntax."""
    lines: dict[str, int] = {}
    table = ""
    closing = ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:  # inside a multi-line string
            closing = "" if closing in line else closing
            continue
        header = _HEADER.match(line)
        if header:
            table = _plain(header[1])
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            name = _plain(key[1])
            lines.setdefault(f"{table}.{name}" if table else name, number)
            value = line[key.end() :]
            closing = next((quote for quote in ('"""', "'''") if value.count(quote) == 1), "")
    return lines


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))

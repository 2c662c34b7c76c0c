"""The line on which each key and table of a TOML text begins, which tomllib does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any


def lines(text: str) -> dict[str, int]:
    """Path -> line, of a text that tomllib accepts.

    A statement is the fewest lines that are valid TOML by themselves: so the parser decides what
    is a key, and what is only a line within a long string that looks like one.
    """
    found: dict[str, int] = {}
    table = ""
    statement, begun = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement += line + "\n"
        try:
            said = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        paths = list(_paths(said, ""))
        if statement.lstrip().startswith("[["):
            table = _next(paths[-1], found)
            paths.append(table)
        elif statement.lstrip().startswith("["):
            table = paths[-1]
        elif table:
            paths = [f"{table}.{path}" for path in paths]
        for path in paths:
            found.setdefault(path, begun)
        statement, begun = "", number + 1
    return found


def _next(array: str, found: Mapping[str, int]) -> str:
    """The table that [[array]] begins, counted from 1."""
    return next(place for n in count(1) if (place := f"{array}.{n}") not in found)


def line_of(path: str, found: Mapping[str, int]) -> int | None:
    """The line of this key, or of the table that it should stand in; None when there is neither."""
    while path and path not in found:
        path = path.rpartition(".")[0]
    return found.get(path)


def _paths(table: dict[str, Any], above: str) -> Iterator[str]:
    for key, value in table.items():
        path = f"{above}.{key}" if above else key
        yield path
        if isinstance(value, dict):
            yield from _paths(value, path)

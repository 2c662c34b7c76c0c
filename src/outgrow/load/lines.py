"""The line on which each key and table of a TOML text begins, those of arrays of tables included.

A statement is the fewest lines that are valid TOML by themselves: so the parser decides what is a key,
and what is only a line within a long string that looks like one.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any


def lines(text: str) -> dict[str, int]:
    """Path -> line, of a text that tomllib accepts: "rate", "phase[1].to", "request.list.path"."""
    found: dict[str, int] = {}
    arrays: Counter[str] = Counter()
    table, statement, begun = "", "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement += line + "\n"
        try:
            said = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        paths = list(_paths(said, ""))
        if statement.lstrip().startswith("[["):
            name = paths[-1].removesuffix("[0]")
            table = f"{name}[{arrays[name]}]"
            arrays[name] += 1
            paths = [table]
        elif statement.lstrip().startswith("["):
            table = paths[-1]
        elif table:
            paths = [f"{table}.{path}" for path in paths]
        for path in paths:
            found.setdefault(path, begun)
        statement, begun = "", number + 1
    return found


def line_of(path: str, found: Mapping[str, int]) -> int | None:
    """The line of this key, or of the nearest table around it; None when there is neither."""
    while path and path not in found:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return found.get(path)


def _paths(value: Any, above: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            path = f"{above}.{key}" if above else key
            yield path
            yield from _paths(inner, path)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if isinstance(inner, dict):
                yield f"{above}[{number}]"
                yield from _paths(inner, f"{above}[{number}]")

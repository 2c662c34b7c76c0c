"""The lines of outgrow.toml that a change of the fleet writes. Comments and order stay as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from outgrow.errors import Misuse, TopologyError
from outgrow.topology import Topology, parse

FILE = "outgrow.toml"
SERVERS = "application.servers"
REPLICAS = "database.replicas"
KEPT = ("sessions.engine", "cache.engine", REPLICAS)
"""What a stage may bring that a move has not, or a move keeps where the stage has none."""

Value = str | int | float

_ANOTHER_STAGE = (
    "a growth changes these lines alone: make the file right for both stages first. Where [database] names "
    "a file, stop the fleet, move the file to the default place (.outgrow/data/NAME.db), and remove the line"
)
_SECTION = re.compile(r"^\s*\[", re.MULTILINE)
_SAYS_SOMETHING = re.compile(r"^[ \t]*[^\s#][^\n]*(?:\n|$)", re.MULTILINE)


def require_settable(path: Path, values: Mapping[str, Value]) -> Topology:
    """What outgrow.toml will mean. Raises Misuse when it would be wrong, before anything is done for it."""
    text = with_values(path.read_text(encoding="utf-8"), values)
    said = ", ".join(f"{key} = {written(value)}" for key, value in values.items())
    try:
        after = parse(text, source=path.name, environment=os.environ)
    except TopologyError as error:
        raise Misuse(
            f"with {said} this outgrow.toml would be wrong: {error.message}",
            hint=_ANOTHER_STAGE if "stage" in values else "nothing has been changed",
        ) from error
    if any(_value_of(after, key) != value for key, value in values.items()):
        raise Misuse(
            f"{said}: this outgrow.toml cannot be changed",
            hint="write each key on a line of its own, below its [section]",
        )
    return after


def of(directory: Path, after: Topology) -> dict[str, Value]:
    """What outgrow.toml must say of it: the stage, and what that would mean otherwise."""
    values: dict[str, Value] = {"stage": after.stage}
    text = (directory / FILE).read_text(encoding="utf-8")
    if says(text, SERVERS):
        values[SERVERS] = after.application.count
    try:
        meant = parse(with_values(text, values), environment=os.environ)
    except TopologyError:
        return values  # `require_settable` tells what is wrong
    wanted = {key: _value_of(after, key) for key in KEPT}
    return values | {key: value for key, value in wanted.items() if _value_of(meant, key) != value}


def settle(directory: Path, after: Topology) -> None:
    """Write them. The file is replaced whole, or not at all."""
    path = directory / FILE
    write(path, with_values(path.read_text(encoding="utf-8"), of(directory, after)))


def write(path: Path, after: str) -> None:
    """Replace the file whole, or not at all; not when it says that already."""
    if after == path.read_text(encoding="utf-8"):
        return
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(after)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(path.stat().st_mode & 0o777)
    temporary.replace(path)


def with_values(text: str, values: Mapping[str, Value]) -> str:
    """The text with these keys ("stage", "application.servers") changed, or said where they were not."""
    return reduce(lambda changed, each: _with_value(changed, *each), values.items(), text)


def says(text: str, key: str) -> bool:
    """Whether the text has this key on a line of its own."""
    start, end = _section(text, key.rpartition(".")[0])
    return _line(key).search(text[start:end]) is not None


def written(value: Value) -> str:
    """As TOML has it."""
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def _with_value(text: str, key: str, value: Value) -> str:
    section, _, name = key.rpartition(".")
    start, end = _section(text, section)
    changed, count = _line(key).subn(
        lambda found: f"{found['before']}{written(value)}", text[start:end], count=1
    )
    if count:
        return text[:start] + changed + text[end:]
    line = f"{name} = {written(value)}\n"
    if start < 0:
        return f"{text.rstrip()}\n\n[{section}]\n{line}".lstrip("\n")
    if not section:
        return line + text
    # After the section's last line that says something: a comment behind it belongs to the next one.
    last = max((found.end() for found in _SAYS_SOMETHING.finditer(text, start, end)), default=start)
    before = text[:last] if text[:last].endswith("\n") else f"{text[:last]}\n"
    return before + line + text[last:]


def _section(text: str, name: str) -> tuple[int, int]:
    """Where the lines of a section begin and end; -1 and -1 when there is none."""
    if not name:
        found = _SECTION.search(text)
        return 0, found.start() if found else len(text)
    header = re.search(rf"^[ \t]*\[[ \t]*{re.escape(name)}[ \t]*\][ \t]*(?:#.*)?$\n?", text, re.MULTILINE)
    if header is None:
        return -1, -1
    after = _SECTION.search(text, header.end())
    return header.end(), after.start() if after else len(text)


def _line(key: str) -> re.Pattern[str]:
    name = re.escape(key.rpartition(".")[2])
    return re.compile(
        rf"""^(?P<before>[ \t]*(?:{name}|"{name}"|'{name}')[ \t]*=[ \t]*)"""
        r"""(?P<value>"[^"\n]*"|'[^'\n]*'|[\d_.eE+-]+)""",
        re.MULTILINE,
    )


def _value_of(topology: Topology, key: str) -> Any:
    value: Any = topology
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value

"""The nodes' logs as a live tail: what was added since the place that the page has reached."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from outgrow.runtime.telemetry import logs as runtime_logs

SUFFIX = ".log"
READ_MAX = 256 * 1024
FIRST_READ_MAX = 1024 * 1024
LINES_MAX = 400
LINE_MAX = 4000
ACCESS = b'"logger":"outgrow.access"'
_TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{3})?")


class Line(msgspec.Struct, array_like=True):
    """A line of one node, as it was written."""

    node: str
    text: str


class Tail(msgspec.Struct):
    """The new lines, and where the next look begins. `skipped`: so many lines did not fit in."""

    cursor: dict[str, int]
    lines: list[Line]
    skipped: int


def nodes(folder: Path) -> list[str]:
    """Those that have a log."""
    return sorted(each.name.removesuffix(SUFFIX) for each in folder.glob(f"*{SUFFIX}"))


def tail(
    folder: Path, cursor: dict[str, int], *, chosen: str = "", search: str = "", access: bool = False
) -> Tail:
    """What is new in one log or in all, at most LINES_MAX lines that hold `search`.

    Without `access` the line that every request leaves is left out. What a rotation took away between
    two looks is not followed: the file has it, `outgrow logs` shows it.
    """
    wanted = search.lower().encode()
    found: list[tuple[str, Line]] = []
    reached: dict[str, int] = {}
    for node in nodes(folder):
        if chosen and node != chosen:
            continue
        data, reached[node] = _added(folder / f"{node}{SUFFIX}", cursor.get(node))
        lines = (line for line in data.split(b"\n") if line and (access or ACCESS not in line))
        found += _timed(node, _holding(lines, wanted))
    if len(reached) > 1:
        found.sort(key=lambda each: each[0])
    skipped = max(0, len(found) - LINES_MAX)
    return Tail(reached, [line for _, line in found[skipped:]], skipped)


def _holding(lines: Iterable[bytes], wanted: bytes) -> Iterable[bytes]:
    return (line for line in lines if not wanted or wanted in line.lower())


def _added(path: Path, start: int | None) -> tuple[bytes, int]:
    """The complete lines from `start` on, and where they end."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            if start is None or start > end:  # the first look, or the log was rotated
                begin = max(0, end - FIRST_READ_MAX) if start is None else 0
            else:
                begin = max(start, end - READ_MAX)
            file.seek(begin)
            data = file.read(end - begin)
    except OSError:
        return b"", 0
    whole = data.rfind(b"\n") + 1
    if begin and begin != start:  # in the middle of a line
        first = data.find(b"\n") + 1
        return data[first:whole], begin + whole
    return data[:whole], begin + whole


def _text(line: bytes) -> str:
    return runtime_logs.escaped(line.decode("utf-8", "replace"), LINE_MAX)


def _timed(node: str, lines: Iterable[bytes]) -> Iterator[tuple[str, Line]]:
    """Each line with its time, as text that sorts; one without belongs to the line before it."""
    moment = ""
    for line in lines:
        found = _TIME.search(line[:200])
        if found is not None:
            moment = found[0].decode().replace(" ", "T")
        yield moment, Line(node, _text(line))

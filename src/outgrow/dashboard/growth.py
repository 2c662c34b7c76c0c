"""What a growth writes down of itself, as events: .outgrow/growth/ (growth/journal.py says what is in it).

journal.jsonl  the growth under way, a line before and after each step      audit.jsonl  how each has ended
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeVar

import msgspec

from outgrow.dashboard.events import Events
from outgrow.dashboard.snapshot import Growth
from outgrow.growth import journal as journals

T = TypeVar("T")

KINDS = {"scale": "scale", "autoscale": "scale", "deploy": "deploy", "drill": "drill"}
"""Changes that have no journal, by the first word of what the audit says; all else is a growth."""

KINDS_TOLD = {*KINDS.values(), "growth"}
_WORDS = {"done": "is done", "failed": "has failed", "undoing": "is being undone", "undone": "is undone"}


class Line(msgspec.Struct):
    """A line of the journal; what else it holds is for the growth itself."""

    at: float
    event: str
    step: str = ""
    text: str = ""
    move: str = ""


class Ended(msgspec.Struct):
    """A line of the audit."""

    ended: float
    who: str
    move: str
    outcome: str
    to: str = ""


class Watch:
    """Follows both files. What is older than the newest event about growth has been told before."""

    def __init__(self, folder: Path, events: Events) -> None:
        self._folder = folder
        self._journal, self._audit = folder / "journal.jsonl", folder / "audit.jsonl"
        self._events = events
        self._told = max((event.at for event in events.kept if event.kind in KINDS_TOLD), default=0.0)
        self._seen: tuple[tuple[int, int], ...] = ()
        self._last: Growth | None = None

    @property
    def now(self) -> Growth | None:
        """The growth that has not ended, if there is one."""
        if self._last is None:
            return None
        return msgspec.structs.replace(self._last, cut_off=journals.holder(self._folder) is None)

    def look(self) -> None:
        """Tell what is new."""
        seen = (_state(self._journal), _state(self._audit))
        if seen == self._seen:
            return
        self._seen = seen
        lines = [_decoded(line, Line) for line in _lines(self._journal)]
        journal = [line for line in lines if line is not None]
        self._last = _under_way(journal)
        move = journal[0].move if journal else ""
        new = [(line.at, "growth", _words(line, move)) for line in journal]
        ended = (_decoded(line, Ended) for line in _lines(self._audit))
        new += [(each.ended, kind_of(each.move), _said(each)) for each in ended if each is not None]
        for at, kind, text in sorted(new):
            if at > self._told and text:
                self._told = at
                self._events.add(at, kind, text)


def kind_of(move: str) -> str:
    """Which kind of event a line of the audit is."""
    return KINDS.get(move.partition(":")[0].partition(" ")[0], "growth")


def _said(ended: Ended) -> str:
    to = f" {ended.to}" if ended.move == "scale" else ""
    return f"{ended.move}{to}: {ended.outcome}, by {ended.who}"


def _words(line: Line, move: str) -> str:
    if line.event == "begun":
        return f"{move}: has begun"
    if line.event not in _WORDS:
        return ""
    return f"{move}: {line.step} {_WORDS[line.event]}" + (f": {line.text}" if line.text else "")


def _under_way(journal: list[Line]) -> Growth | None:
    if not journal:
        return None
    last = journal[-1]
    return Growth(journal[0].move, last.step, last.event, journal[0].at, cut_off=False)


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _lines(path: Path) -> list[bytes]:
    with contextlib.suppress(OSError):
        return path.read_bytes().splitlines()
    return []


def _decoded(line: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError:  # being written just now: the next look finds it whole
        return None

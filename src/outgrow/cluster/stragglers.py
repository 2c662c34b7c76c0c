"""A replica that needs a part of the log that the primary has no more: it copies the database anew.

PostgreSQL says so in its log every few seconds, and would ask for the same part for ever. What such a node
has is of no use to anybody while there is a primary, and nothing is done while there is none. A replica that
does not start is another matter: its data may be the last there is, so a person decides (`outgrow rebuild`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

from outgrow.engines.patroni.view import RUNNING, Member, View

GONE = re.compile(rb"requested WAL segment [0-9A-F]{24} has already been removed")
TIMES_MIN = 2
"""Who has asked the wrong node, in the middle of a failover, asks another one the next time."""

AGAIN_S = 60.0
STARTING = "starting"
STOPPED = ("start failed", "crashed")


class Stragglers:
    """Finds them, by what is known of them and what they write into `logs`."""

    def __init__(self, names: Iterable[str], logs: Path) -> None:
        self._logs = {name: Tail(logs / f"{name}.log") for name in names}
        self._asked = dict.fromkeys(self._logs, 0)
        self._again = dict.fromkeys(self._logs, 0.0)

    def due(self, view: View) -> list[str]:
        """Who is to copy the database anew: each is named once a minute."""
        return [name for name in self._logs if self._is_due(name, view)]

    def _is_due(self, name: str, view: View) -> bool:
        asked, member, now = self._logs[name].count(GONE), view.members.get(name), time.monotonic()
        away = member is not None and _waits(member) and view.primary is not None and not view.paused
        self._asked[name] = self._asked[name] + asked if away else 0
        if self._asked[name] < TIMES_MIN or now < self._again[name]:
            return False
        self._again[name] = now + AGAIN_S
        return True


class Tail:
    """What is written into a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = self._size()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def count(self, what: re.Pattern[bytes]) -> int:
        """How often it was written since this was asked last. A file that was begun anew is read whole."""
        size = self._size()
        if size == self._read:
            return 0
        begin, self._read = (self._read if size > self._read else 0), size
        try:
            with self._path.open("rb") as file:
                file.seek(begin)
                return len(what.findall(file.read(size - begin)))
        except OSError:
            return 0


def _waits(member: Member) -> bool:
    return member.role == "replica" and member.state in (*RUNNING, STARTING) and not member.streaming


def troubles(view: View) -> tuple[str, ...]:
    """What a person has to decide."""
    return tuple(
        f"{each.name} does not start: `outgrow logs {each.name}` says why, "
        f"`outgrow rebuild {each.name}` copies it anew from the primary"
        for each in view.members.values()
        if each.state in STOPPED
    )

"""What has happened to the fleet: starts, restarts, failures, changes of stage, steps of growth.

.outgrow/data/events.jsonl   one event a line; cut to the newest when it has grown long
"""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path

import msgspec

from outgrow.cluster import NodeStatus, Status

KEPT_MAX = 500
LINES_MAX = 2000
BYTES_READ_MAX = 2 * 1024 * 1024


class Event(msgspec.Struct, omit_defaults=True):
    """`at` is Unix time; `kind` is one of these:

    fleet, stage, growth, scale, deploy, drill            of the whole
    ready, restart, failed, out, ejected, draining, in    of a node: the last four are a balancer's view
    """

    id: int
    at: float
    kind: str
    text: str
    node: str = ""


class Events:
    """The newest events, kept in a file as well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self.kept: deque[Event] = deque(maxlen=KEPT_MAX)
        self._read()

    @property
    def newest(self) -> int:
        """The highest id."""
        return self.kept[-1].id if self.kept else 0

    def add(self, at: float, kind: str, text: str, node: str = "") -> None:
        """One more. When the disk is full it is remembered all the same."""
        event = Event(self.newest + 1, at, kind, text, node)
        self.kept.append(event)
        with contextlib.suppress(OSError):
            if self._lines >= LINES_MAX:
                self._cut()
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(event) + b"\n")
            self._lines += 1

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - BYTES_READ_MAX))
            for line in file:
                self._lines += 1
                with contextlib.suppress(msgspec.DecodeError):  # cut off, by us or by a crash
                    self.kept.append(msgspec.json.decode(line, type=Event))

    def _cut(self) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in self.kept))
        temporary.replace(self._path)
        self._lines = len(self.kept)


class Watch:
    """Turns the difference between two looks at the fleet into events."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._before: Status | None = None

    def look(self, at: float, status: Status) -> None:
        """What is different now."""
        before = self._before
        self._before = status
        if before is None:
            self._begin(status)
            return
        if status.stage != before.stage:
            self._events.add(at, "stage", f"{before.stage} became {status.stage}")
        elif status.epoch != before.epoch:
            self._events.add(at, "stage", f"epoch {status.epoch}: the endpoints have changed")
        known = {node.name: node for node in before.nodes}
        for node in status.nodes:
            self._compare(at, known.pop(node.name, None), node)
        for name, node in known.items():
            if node.kind != "job":
                self._events.add(at, "fleet", "is no part of the fleet any more", name)

    def _begin(self, status: Status) -> None:
        """The dashboard has begun: with its fleet, or again."""
        started = [event for event in self._events.kept if event.kind == "fleet" and not event.node]
        if not started or abs(started[-1].at - status.since) > 1.0:
            text = f"the fleet has started at stage {status.stage}, epoch {status.epoch}"
            self._events.add(status.since, "fleet", text)

    def _compare(self, at: float, before: NodeStatus | None, now: NodeStatus) -> None:
        if now.kind == "job" and now.state != "failed":
            return  # it comes and goes with what it is for
        if before is None:
            self._events.add(at, "fleet", "is new", now.name)
            return
        if now.restarts > before.restarts:
            reason = now.text or (f"process {before.pid} has ended" if before.pid else "ended")
            self._events.add(
                at, "restart", f"{reason}; started again for the {_times(now.restarts)} time", now.name
            )
        if now.state == before.state:
            return
        if now.state == "failed":
            self._events.add(at, "failed", now.text or "has failed", now.name)
        elif now.state == "ready" and before.state != "waiting":
            self._events.add(at, "ready", "is ready", now.name)


def _times(count: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{count}{'th' if count % 100 in (11, 12, 13) else endings.get(count % 10, 'th')}"

"""What is known of a growth after a crash at any line: .outgrow/growth/

journal.jsonl   the growth under way: a line before and after each step, on the disk before it is acted on
history/        the journals of those that have ended
audit.jsonl     one line each: who, when, what, how it ended
lock            held (flock) by the command that works on it; says who, and why
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from outgrow.cluster.control import bare
from outgrow.errors import BeingChanged, Misuse, StateUnreadable
from outgrow.topology import Topology

LOCK_WAIT_S = 0.5
"""Longer than `outgrow status` looks who has the lock."""

Event = Literal["begun", "applying", "done", "failed", "undoing", "undone"]


class Entry(msgspec.Struct, omit_defaults=True):
    """One line. `kept` is what the step must know when it is tried again."""

    at: float
    event: Event
    step: str = ""
    text: str = ""
    kept: dict[str, Any] = {}
    move: str = ""
    before: Topology | None = None
    after: Topology | None = None


class Journal:
    """The growth of one application. Lines are read when it is opened and when they are written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "journal.jsonl"
        self.entries: list[Entry] = []
        self._read()

    @property
    def open(self) -> bool:
        """Whether a growth is under way."""
        return bool(self.entries)

    @property
    def begun(self) -> Entry:
        """The first line: which move, from where, to where."""
        return self.entries[0]

    @property
    def kept(self) -> dict[str, Any]:
        """All that the steps have kept."""
        return {key: value for entry in self.entries for key, value in entry.kept.items()}

    def state_of(self, step: str) -> Event | None:
        """The last thing that happened to a step."""
        return next((entry.event for entry in reversed(self.entries) if entry.step == step), None)

    def last_failure(self) -> str:
        """Why it stopped, if it knows."""
        return next((entry.text for entry in reversed(self.entries) if entry.event == "failed"), "")

    def begin(self, move: str, before: Topology, after: Topology) -> None:
        """The first line. The topologies are kept without their secrets, which outgrow.toml still has."""
        self._write(Entry(time.time(), "begun", move=move, before=bare(before), after=bare(after)))

    def add(self, event: Event, step: str, text: str = "", kept: dict[str, Any] | None = None) -> None:
        """One more line, on the disk when this returns."""
        self._write(Entry(time.time(), event, step, text, kept or {}))

    def end(self, outcome: str) -> None:
        """It is over: put the journal aside and write the audit line."""
        first = self.begun
        assert first.before is not None and first.after is not None
        line = {
            "began": first.at,
            "ended": time.time(),
            "who": who(),
            "move": first.move,
            "from": first.before.stage,
            "to": first.after.stage,
            "outcome": outcome,
        }
        _append(self._folder / "audit.jsonl", msgspec.json.encode(line))
        history = self._folder / "history"
        history.mkdir(exist_ok=True)
        self._file.rename(history / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(first.at))}.jsonl")
        self.entries = []

    def _read(self) -> None:
        try:
            lines = self._file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        # Behind the last end of a line is nothing, or what was cut off and had not been acted on.
        for number, line in enumerate(lines[:-1], 1):
            try:
                self.entries.append(msgspec.json.decode(line, type=Entry))
            except msgspec.DecodeError as error:
                raise StateUnreadable(
                    f"{self._file}, line {number}: {error}",
                    hint=f"`outgrow down`, and keep {self._file.parent} for whoever repairs it",
                ) from error

    def _write(self, entry: Entry) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _append(self._file, msgspec.json.encode(entry), after=len(self.entries))
        self.entries.append(entry)


def audit(folder: Path, began: float, what: str, to: str, outcome: str) -> None:
    """The line of a change that needs no journal. It may be written beside others."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = {"began": began, "ended": time.time(), "who": who(), "move": what, "to": to, "outcome": outcome}
    _append(folder / "audit.jsonl", msgspec.json.encode(line))


def _append(path: Path, line: bytes, *, after: int | None = None) -> None:
    """Add a line and wait for the disk. `after` lines are whole; half a one behind them goes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_APPEND if after is None else 0), 0o600)
    try:
        if after is not None:
            whole = os.pread(descriptor, os.fstat(descriptor).st_size, 0).split(b"\n")[:after]
            os.ftruncate(descriptor, sum(len(each) + 1 for each in whole))
            os.lseek(descriptor, 0, os.SEEK_END)
        os.write(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(folder: Path, why: str) -> Iterator[None]:
    """Be the only one that changes this application. Raises BeingChanged that says who does, and why."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(descriptor):
            raise BeingChanged(
                f"this application is being changed: {_told_in(descriptor)}", hint="wait for it to end"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{who()}: {why}".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def holder(folder: Path) -> str | None:
    """Who has the lock, and why; None when nobody has it, since a killed process lets go."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _told_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _told_in(descriptor: int) -> str:
    return os.pread(descriptor, 500, 0).decode(errors="replace") or "somebody"


def who() -> str:
    """user@host, process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


def require_none(journal: Journal) -> None:
    """Raises Misuse when a growth is under way."""
    if journal.open:
        raise Misuse(
            f"a growth ({journal.begun.move}) is not finished: {journal.last_failure() or 'it was cut off'}",
            hint="`outgrow grow --resume` finishes it, `outgrow grow --undo` takes it back",
        )

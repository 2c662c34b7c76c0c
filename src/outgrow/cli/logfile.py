"""Reading the nodes' log files: the last lines, and what is added, across rotations.

A fleet writes .outgrow/logs/NODE.log; when it is large, the supervisor copies it to NODE.log.1 and cuts
it to nothing, while it holds a lock on it (supervisor/logs.py). The files are read and not the running
supervisor asked, because they are most wanted when nothing runs any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".log"
_BLOCK = 64 * 1024
_TRACE = 256
"""So many bytes are enough to know again the place up to which a file was read."""


def nodes(logs: Path) -> list[str]:
    """The nodes that have a log."""
    return sorted(each.name.removesuffix(SUFFIX) for each in logs.glob(f"*{SUFFIX}"))


def last_lines(path: Path, count: int, *, end: int | None = None) -> list[str]:
    """The last `count` lines up to the byte `end`; from the file before the rotation too if need be."""
    if not count:
        return []
    tail = _tail(path, count, end)
    older = _older(path)
    if tail.count(b"\n") <= count and older.exists():
        tail = _tail(older, count - tail.count(b"\n"), None) + tail
    return _decoded(tail.removesuffix(b"\n").split(b"\n"))[-count:] if tail else []


class Follower:
    """What is added to one log from now on, complete lines alone.

    No line is lost or doubled over a rotation, however often `read` is called, as long as that is once
    between two rotations; else what the file cut in between held is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._held() as file:
            self._rotation = self._last_rotation()
            self._position = _after_last_line(file)
            known = min(self._position, _TRACE)
            self._trace = os.pread(file.fileno(), known, self._position - known)
        self.begin = self._position
        """Lines from here on are still to come; those before are `last_lines(..., end=begin)`."""
        self._rest = b""

    def read(self) -> list[str]:
        """The lines since the last call."""
        with self._held() as file:
            older = self._rest_of_older(os.fstat(file.fileno()).st_size)
            added = _from(file, self._position)
        self._position += len(added)
        self._trace = (self._trace + added)[-_TRACE:]
        *lines, self._rest = (self._rest + older + added).split(b"\n")
        return _decoded(lines)

    def _rest_of_older(self, size: int) -> bytes:
        """What was not read yet of the file that has been cut since the last call, if it was."""
        rotation = self._last_rotation()
        rotated = rotation not in (self._rotation, None)
        if not rotated and size >= self._position:
            return b""
        before, trace, rest = self._position, self._trace, self._rest
        self._rotation, self._position, self._trace, self._rest = rotation, 0, b"", b""
        if not rotated:  # cut by hand
            return b""
        with _older(self._path).open("rb") as older:
            known = _from(older, before - len(trace))
            if known.startswith(trace):
                self._rest = rest
                return known[len(trace) :]
            return _from(older, 0)  # rotated more than once

    @contextlib.contextmanager
    def _held(self) -> Iterator[BinaryIO]:
        """The log, which is not rotated meanwhile."""
        with self._path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield file

    def _last_rotation(self) -> tuple[int, int] | None:
        """Differs after each rotation."""
        try:
            status = _older(self._path).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _from(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read()


def _decoded(lines: list[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace") for line in lines]


def _tail(path: Path, count: int, end: int | None) -> bytes:
    """At least the last `count` lines, if there are as many."""
    with path.open("rb") as file:
        tail = b""
        for block in _blocks_backwards(file, end):
            tail = block + tail
            if tail.count(b"\n") > count:
                break
    return tail


def _after_last_line(file: BinaryIO) -> int:
    """Where the last complete line ends."""
    position = file.seek(0, os.SEEK_END)
    for block in _blocks_backwards(file, position):
        position -= len(block)
        if (found := block.rfind(b"\n")) >= 0:
            return position + found + 1
    return 0


def _blocks_backwards(file: BinaryIO, end: int | None) -> Iterator[bytes]:
    position = file.seek(0, os.SEEK_END) if end is None else end
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        yield file.read(position - start)
        position = start

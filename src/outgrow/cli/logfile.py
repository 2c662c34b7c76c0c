"""Reading the nodes' log files: the last lines, and what is added, across rotations.

A fleet writes .outgrow/logs/NODE.log and renames it NODE.log.1 when it is large. The files are read
and not the running supervisor asked, because they are most wanted when nothing runs any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".log"
_BLOCK = 64 * 1024


def nodes(logs: Path) -> list[str]:
    """The nodes that have a log."""
    return sorted(each.name.removesuffix(SUFFIX) for each in logs.glob(f"*{SUFFIX}"))


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines, read from the end; into the file before the rotation if need be."""
    lines = _last_lines(path, count)
    older = path.with_name(f"{path.name}.1")
    if len(lines) < count and older.exists():
        lines = _last_lines(older, count - len(lines)) + lines
    return [line.decode("utf-8", "replace") for line in lines]


class Follower:
    """What is added to one log from now on, complete lines alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open(at_end=True)

    def read(self) -> list[str]:
        """The lines since the last call."""
        if self._file is None:
            self._open(at_end=False)
            if self._file is None:
                return []
        lines = self._lines(self._file)
        if self._rotated(self._file):
            lines += self._lines(self._file)  # written between our reading and the rename
            self.close()
            self._open(at_end=False)
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, *, at_end: bool) -> None:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return
        if at_end:
            self._file.seek(0, os.SEEK_END)

    def _lines(self, file: BinaryIO) -> list[str]:
        *lines, self._rest = (self._rest + file.read()).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def _rotated(self, file: BinaryIO) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return True


def _last_lines(path: Path, count: int) -> list[bytes]:
    with path.open("rb") as file:
        tail = b""
        for block in _blocks_backwards(file):
            tail = block + tail
            if tail.count(b"\n") > count:
                break
    return tail.splitlines()[-count:] if count else []


def _blocks_backwards(file: BinaryIO) -> Iterator[bytes]:
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        yield file.read(position - start)
        position = start

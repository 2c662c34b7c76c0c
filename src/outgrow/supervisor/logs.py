"""The log files of the nodes: opened for appending by the nodes themselves, bounded here.

The nodes write into the file and not to the supervisor, so that they can go on when it is killed. A
file that has grown past its limit is therefore copied to NODE.log.1 and cut to nothing: renaming would
not do, since the node keeps its descriptor. What a node writes between the last look at the end of its
file and the cut is lost, and the line before it may be cut short: some ten lines of a node that writes
200,000 a second, once in ten megabytes; more if the machine halts the supervisor just then. Nothing
else is lost.

Who follows a file (see cli/logfile.py) holds a shared lock on it (flock) while he looks at both files;
the rotation takes it alone, so nobody sees half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

SIZE_MAX = 10 * 1024 * 1024
TAIL_BYTES = 1024 * 1024
"""Some seconds of a busy node: what it said of its failure stands before what another wrote meanwhile."""

_BLOCK = 256 * 1024
_COPIED_MAX = 4
"""How many times the limit is copied at most: somebody who writes faster than that is not kept up with."""


class Logs:
    """The folder of logs of one fleet. A log holds at most `size_max` bytes and what a second adds."""

    def __init__(self, directory: Path, *, size_max: int = SIZE_MAX) -> None:
        self.directory = directory
        self._size_max = size_max
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, node: str) -> Path:
        """Where a node's log is."""
        return self.directory / f"{node}.log"

    def open(self, node: str) -> BinaryIO:
        """Its log, for appending: every write goes to the end, wherever that is by then."""
        descriptor = os.open(self.path(node), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def tail(self, node: str, count: int, *, since: int = 0) -> list[str]:
        """Its last lines, from the byte `since` on; from the start where a rotation has cut it below that."""
        try:
            with self.path(node).open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                start = since if since <= end else 0
                file.seek(max(start, end - TAIL_BYTES))
                if end - TAIL_BYTES > start:
                    file.readline()  # a part of one
                return file.read().decode("utf-8", "replace").splitlines()[-count:]
        except FileNotFoundError:
            return []

    def size(self, node: str) -> int:
        """How many bytes it holds."""
        try:
            return self.path(node).stat().st_size
        except FileNotFoundError:
            return 0

    def rotate(self) -> None:
        """Bound every log: one older file is kept. A log that cannot be rotated now is left as it is."""
        for path in self.directory.glob("*.log"):
            with contextlib.suppress(OSError):
                self._rotate(path)

    def _rotate(self, path: Path) -> None:
        size = path.stat().st_size
        if size <= self._size_max:
            return
        with path.open("r+b", buffering=0) as log:
            # A reader holds it for moments; one that was stopped just then must not let the disk fill up.
            if not _locked(log) and size < 2 * self._size_max:
                return
            older = path.with_name(f"{path.name}.1")
            new = path.with_name(f".{older.name}.new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", 0) as copy:
                _copy(log, copy, _COPIED_MAX * self._size_max)
                new.replace(older)
                _copy(log, copy, _COPIED_MAX * self._size_max)  # what has come meanwhile
                os.ftruncate(log.fileno(), 0)


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _copy(source: BinaryIO, target: BinaryIO, most: int) -> None:
    while most > 0 and (block := source.read(_BLOCK)):
        target.write(block)
        most -= len(block)

"""Reading the nodes' log files: the last lines, and what is added, across rotations.

A fleet writes .outgrow/logs/NODE.log; when it is large, it copies it to NODE.log.1 and cuts it to
nothing. The files are read and not the running supervisor asked, because they are most wanted when
nothing runs any more.
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
        self._file = path.open("rb")
        self._position = self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def read(self) -> list[str]:
        """The lines since the last call."""
        if os.fstat(self._file.fileno()).st_size < self._position:
            self._position = self._file.seek(0)  # cut to nothing, because it had grown too large
        added = self._file.read()
        self._position += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


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

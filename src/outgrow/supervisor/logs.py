"""The log files of the nodes: opened for appending by the nodes themselves, bounded here.

A file that has grown past its limit is copied to NODE.log.1 and cut to nothing. Renaming would not
do: the node keeps its descriptor. What is written between copy and cut (microseconds) is lost.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

SIZE_MAX = 10 * 1024 * 1024
TAIL_BYTES = 16 * 1024


class Logs:
    """The folder of logs of one fleet."""

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
        """Its last lines, from the byte `since` on."""
        try:
            with self.path(node).open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(since if since <= end else 0, end - TAIL_BYTES))
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
        """Bound every log: one older file of at most the limit is kept."""
        for path in self.directory.glob("*.log"):
            if path.stat().st_size > self._size_max:
                shutil.copyfile(path, path.with_name(f"{path.name}.1"))
                os.truncate(path, 0)

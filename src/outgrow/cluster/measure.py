"""What a node's processes use: CPU and memory, from /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PSS = "Pss:"


class Usage(NamedTuple):
    """CPU seconds used so far and bytes of memory, of a process and its descendants."""

    cpu_s: float
    memory: int


class Meter:
    """Turns CPU seconds into a share of one core between two looks; at first, since the process began."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, float]] = {}

    def look(self, pid: int) -> tuple[float | None, int | None]:
        """The share of one core and the memory; None for a process that has ended."""
        usage, born = used(pid), _born(pid)
        if usage is None or born is None:
            self._last.pop(pid, None)
            return None, None
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        before, at = self._last.get(pid, (0.0, born))
        self._last[pid] = (usage.cpu_s, now)
        return max(0.0, usage.cpu_s - before) / max(now - at, 0.01), usage.memory


def cpu_seconds(pid: int) -> float | None:
    """The CPU time of a process and its descendants, or None when it has ended; memory costs far more."""
    if not _stat(pid):
        return None
    fields = (_stat(each) for each in (pid, *_descendants(pid)))
    return sum((int(each[11]) + int(each[12])) / _TICKS for each in fields if each)


def _born(pid: int) -> float | None:
    """Seconds after the boot."""
    fields = _stat(pid)
    return int(fields[19]) / _TICKS if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name (proc(5)), none when it has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()


def _read(path: str) -> str:
    """The text of a file of /proc, or none. It is read every second: pathlib takes three times as long."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 65536).decode("utf-8", "replace")
    except OSError:  # it has ended meanwhile
        return ""
    finally:
        os.close(descriptor)


def used(pid: int) -> Usage | None:
    """What a process and its descendants use, or None when it has ended."""
    total_cpu, total_memory, found = 0.0, 0, False
    for each in (pid, *_descendants(pid)):
        fields = _stat(each)
        if fields:
            total_cpu += (int(fields[11]) + int(fields[12])) / _TICKS
            total_memory += _memory(each)
            found = True
    return Usage(total_cpu, total_memory) if found else None


def _memory(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # ended, or another user's
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(_PSS))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        children = [int(child) for child in _read(f"/proc/{each}/task/{each}/children").split()]
        found += children
        waiting += children
    return found

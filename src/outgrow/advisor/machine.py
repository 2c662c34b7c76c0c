"""This machine's CPU, memory and disk, from /proc (see proc(5))."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

_SECTOR_BYTES = 512
_SYS_BLOCK = Path("/sys/block")
_NOT_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
"""What is made of other devices would be counted twice."""


class Machine(msgspec.Struct, frozen=True):
    """One look. Shares are from 0 to 1, sizes in bytes, rates in bytes a second since the last look."""

    cpu: float
    cores: list[float]
    load: float
    memory_used: int
    memory_total: int
    disk_used: int
    disk_total: int
    disk_read: float
    disk_written: float


class Meter:
    """Looks at the machine. The disk space is that of the file system that holds `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disks = [each.name for each in _block_devices() if not each.name.startswith(_NOT_DISKS)]
        self._at = time.monotonic()
        self._times = _cpu_times()
        self._sectors = _sectors(self._disks)

    def look(self) -> Machine:
        """How it is now. Rates are since the last call."""
        now, times, sectors = time.monotonic(), _cpu_times(), _sectors(self._disks)
        elapsed = max(0.001, now - self._at)
        shares = [_busy(before, after) for before, after in zip(self._times, times, strict=False)]
        read, written = (
            (new - old) * _SECTOR_BYTES / elapsed for old, new in zip(self._sectors, sectors, strict=True)
        )
        self._at, self._times, self._sectors = now, times, sectors
        memory_total, memory_available = _memory()
        space = os.statvfs(self._folder)
        return Machine(
            cpu=shares[0] if shares else 0.0,
            cores=shares[1:],
            load=os.getloadavg()[0],
            memory_used=memory_total - memory_available,
            memory_total=memory_total,
            disk_used=(space.f_blocks - space.f_bfree) * space.f_frsize,
            disk_total=(space.f_blocks - space.f_bfree + space.f_bavail) * space.f_frsize,
            disk_read=max(0.0, read),
            disk_written=max(0.0, written),
        )


def _block_devices() -> list[Path]:
    try:
        return list(_SYS_BLOCK.iterdir())
    except OSError:
        return []


def _cpu_times() -> list[tuple[int, int]]:
    """(busy, all) of the whole machine, then of each core, in ticks."""
    found = []
    with open("/proc/stat") as file:
        for line in file:
            if not line.startswith("cpu"):
                break
            ticks = [int(field) for field in line.split()[1:9]]
            found.append((sum(ticks) - ticks[3] - ticks[4], sum(ticks)))
    return found


def _busy(before: tuple[int, int], after: tuple[int, int]) -> float:
    return min(1.0, max(0.0, (after[0] - before[0]) / max(1, after[1] - before[1])))


def _memory() -> tuple[int, int]:
    """All, and what is available, in bytes."""
    figures = {"MemTotal": 0, "MemAvailable": 0}
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in figures:
                figures[name] = int(rest.split()[0]) * 1024
                if name == "MemAvailable":
                    break
    return figures["MemTotal"], figures["MemAvailable"]


def _sectors(disks: list[str]) -> tuple[int, int]:
    """Sectors read and written since the boot, over all disks."""
    read = written = 0
    with open("/proc/diskstats") as file:
        for line in file:
            fields = line.split()
            if fields[2] in disks:
                read += int(fields[5])
                written += int(fields[9])
    return read, written

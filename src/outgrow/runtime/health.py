"""Is this process fit to serve? Shallow: it answers. Deep: what it depends on answers, too.

A balancer that asks only the shallow question keeps a server in service whose database is gone,
which is worse than one that is down. Deep results are kept for a second and computed once at a time,
so that asking often costs little.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

KEPT_S = 1.0
DISK_FREE_BYTES_MIN = 256 * 1024 * 1024
REASON_LENGTH_MAX = 500

Run = Callable[[], Coroutine[Any, Any, str | None]]
"""A check: raises when what it checks is not in order, else returns a remark or None."""

Status = Literal["ok", "degraded", "failing"]


class Check(msgspec.Struct, frozen=True):
    """One thing this process depends on. A critical one that fails takes the process out of service."""

    name: str
    run: Run
    critical: bool = True
    timeout_s: float = 2.0


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a check found. `reason` says why it failed, or remarks on what is in order."""

    name: str
    ok: bool
    critical: bool
    seconds: float
    reason: str | None = None


class Report(msgspec.Struct, frozen=True):
    """All checks at one moment. degraded: one that is not critical fails; failing: a critical one does."""

    status: Status
    seconds: float
    checks: list[Result]


class Health:
    """The checks of one process. `stopping` turns every answer into 503, ahead of the tiers' closing."""

    def __init__(self) -> None:
        self.stopping = False
        self._checks: dict[str, Check] = {}
        self._running: asyncio.Task[Report] | None = None
        self._report: Report | None = None
        self._made = 0.0

    def add(self, name: str, run: Run, *, critical: bool = True, timeout_s: float = 2.0) -> None:
        """Check this, too. The same name again replaces the check."""
        self._checks[name] = Check(name, run, critical, timeout_s)
        self._report = None

    def remove(self, name: str) -> None:
        """Check this no more."""
        self._checks.pop(name, None)
        self._report = None

    async def deep(self) -> Report:
        """Run every check at once, each within its own time. At most a second old."""
        if self._report is not None and time.monotonic() - self._made < KEPT_S:
            return self._report
        loop = asyncio.get_running_loop()
        if self._running is None or self._running.done() or self._running.get_loop() is not loop:
            self._running = loop.create_task(self._run_all())
        # Shielded: a caller that goes away must not cancel the answer of the others.
        return await asyncio.shield(self._running)

    async def _run_all(self) -> Report:
        started = time.monotonic()
        results = await asyncio.gather(*(_run(check) for check in self._checks.values()))
        status: Status = "ok"
        for result in results:
            if not result.ok:
                status = "failing" if result.critical or status == "failing" else "degraded"
        self._made = time.monotonic()
        self._report = Report(status, round(self._made - started, 6), results)
        return self._report


async def _run(check: Check) -> Result:
    started = time.monotonic()
    try:
        async with asyncio.timeout(check.timeout_s):
            remark = await check.run()
    except TimeoutError:
        return _result(check, started, f"no answer within {check.timeout_s:g} s")
    except Exception as error:
        return _result(check, started, f"{type(error).__name__}: {error}")
    return Result(check.name, True, check.critical, _since(started), remark)


def _result(check: Check, started: float, reason: str) -> Result:
    return Result(check.name, False, check.critical, _since(started), reason[:REASON_LENGTH_MAX])


def _since(started: float) -> float:
    return round(time.monotonic() - started, 6)


def disk_space(path: str | os.PathLike[str], *, free_bytes_min: int = DISK_FREE_BYTES_MIN) -> Run:
    """A check that the file system of `path` has this much room left."""

    async def run() -> str:
        # statvfs can hang on a network file system, hence the thread.
        usage = await asyncio.to_thread(shutil.disk_usage, path)
        remark = f"{usage.free / 2**30:.1f} GiB free"
        if usage.free < free_bytes_min:
            raise OSError(f"{remark}, less than {free_bytes_min / 2**20:.0f} MiB")
        return remark

    return run

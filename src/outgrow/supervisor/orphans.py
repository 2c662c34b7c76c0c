"""Children that outlived their supervisor, because it was killed: found again, and ended.

Two marks, so that each covers the other's gap: the supervisor notes every child's pid with its start
time (a pid alone may belong to another by now), and every child carries OUTGROW_FLEET in its
environment (a child started just before the supervisor died may not be noted). PostgreSQL writes its
process title over its environment, so for it the note counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

MARK = "OUTGROW_FLEET"
GRACE_S = 10.0


class Note(msgspec.Struct, frozen=True):
    """What is remembered of a child: enough to know it again, and how it likes to be stopped."""

    pid: int
    started: int
    signal: str = "TERM"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(") ")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Differs after each boot of the machine, which ends all pids and start times."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def note(pid: int, stop_signal: str) -> Note:
    """The note of a child that runs now."""
    return Note(pid, start_time(pid) or 0, stop_signal)


def find(fleet: str, notes: Iterable[Note]) -> list[Note]:
    """The processes of this fleet that still run."""
    found = {each.pid: each for each in notes if start_time(each.pid) == each.started}
    wanted = f"{MARK}={fleet}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in found and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    pid = int(entry.name)
                    found[pid] = note(pid, "TERM")
    return list(found.values())


def end(processes: Iterable[Note], *, grace_s: float = GRACE_S) -> int:
    """Ask each to end, wait, and kill what is left with its group. Returns how many there were."""
    alive = [each for each in processes if start_time(each.pid) == each.started]
    count = len(alive)
    for each in alive:
        _send(each.pid, signal.Signals[f"SIG{each.signal}"])
    deadline = time.monotonic() + grace_s
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        alive = [each for each in alive if start_time(each.pid) == each.started]
    for each in alive:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(each.pid) == each.pid:
                os.killpg(each.pid, signal.SIGKILL)
        _send(each.pid, signal.SIGKILL)
    return count


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)

"""Children that outlived their supervisor, because it was killed: found again, and ended.

Three ways to know them, so that each covers the others' gaps. None is a name or a bare pid, which may
belong to somebody else by now:

note      pid and start time, kept by the supervisor for every child
session   every child leads a session of its own: who is in it was started by that child
mark      OUTGROW_FLEET in the environment, inherited by all; for a child that was not noted yet when
          the supervisor died, and for what has left its session. PostgreSQL's backends write their
          titles over it: they end with their server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from outgrow.errors import FleetError
from outgrow.workload import Stop

MARK = "OUTGROW_FLEET"
KILLED_WITHIN_S = 5.0
_INTERVAL_S = 0.02


class Note(msgspec.Struct, frozen=True):
    """What is remembered of a child: enough to know it again, and how it likes to be stopped.

    `turn` is when: after those of every turn before it, which may need it to end well.
    """

    pid: int
    started: int
    signal: str = "TERM"
    grace_s: float = 10.0
    turn: int = 0


class _Seen(NamedTuple):
    """A process as /proc/PID/stat (proc_pid_stat(5)) tells it; `started` in clock ticks since boot."""

    started: int
    parent: int
    session: int


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none, or only its remains."""
    seen = _look(pid)
    return seen.started if seen is not None else None


def boot_id() -> str:
    """Differs after each boot of the machine, which ends all pids and start times."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def note(pid: int, stop: Stop, turn: int = 0) -> Note:
    """The note of a child that runs now."""
    return Note(pid, start_time(pid) or 0, stop.signal, stop.grace_s, turn)


def find(fleet: str, notes: Iterable[Note]) -> list[Note]:
    """The processes of this fleet that still run: those noted first, in the order given.

    Never this process nor one that has started it, whatever their environment says.
    """
    running = dict(_running())
    noted = {each.pid: each for each in notes if _same(each, running.get(each.pid))}
    spared = set(_line_of(os.getpid(), running))
    wanted = f"{MARK}={fleet}".encode()
    found = [
        Note(pid, seen.started)
        for pid, seen in running.items()
        if pid not in noted
        and pid not in spared
        and (seen.session in noted or wanted in _environment(pid))
        and start_time(pid) == seen.started  # still the one whose session or environment was read
    ]
    return [*noted.values(), *found]


def end(processes: Iterable[Note]) -> int:
    """Ask them to end, wait as long as they may take, then kill what is left. Returns how many ran.

    In turns: a server whose database is asked at the same time would wait for that until its patience ends.
    Those that another of them has started are that one's to end. Raises FleetError when one cannot be
    ended, since it belongs to another user or hangs in the kernel.
    """
    alive = _alive(processes)
    count = len(alive)
    asked = _first(alive)
    for turn in sorted({each.turn for each in asked}):
        now = [each for each in asked if each.turn == turn]
        for each in now:
            _send(each, signal.Signals[f"SIG{each.signal}"])
        for each in _wait(now, lambda each: each.grace_s):
            _send(each, signal.SIGKILL)
    alive = _alive(alive)
    for each in alive:
        _send(each, signal.SIGKILL)
    if left := _wait(alive, lambda each: KILLED_WITHIN_S):
        raise FleetError(
            f"these processes of the fleet do not end: {', '.join(str(each.pid) for each in left)}",
            hint="they belong to another user, who must end them, or wait for a disk that does not answer",
        )
    return count


def _running() -> Iterator[tuple[int, _Seen]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (seen := _look(int(entry))) is not None:
            yield int(entry), seen


def _look(pid: int) -> _Seen | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(") ")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else _Seen(int(fields[19]), int(fields[1]), int(fields[3]))


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _line_of(pid: int, running: dict[int, _Seen]) -> Iterator[int]:
    """A process, who started it, who started that one..."""
    while pid in running:
        yield pid
        pid = running[pid].parent


def _same(note: Note, seen: _Seen | None) -> bool:
    return seen is not None and seen.started == note.started


def _alive(processes: Iterable[Note]) -> list[Note]:
    return [each for each in processes if _same(each, _look(each.pid))]


def _first(processes: Sequence[Note]) -> list[Note]:
    """Those that none of the others has started."""
    pids = {each.pid for each in processes}
    return [each for each in processes if (seen := _look(each.pid)) is None or seen.parent not in pids]


def _wait(processes: Sequence[Note], patience_s: Callable[[Note], float]) -> list[Note]:
    """Until each has ended or had its time; returns those that still run."""
    began = time.monotonic()
    while alive := _alive(processes):
        waited_s = time.monotonic() - began
        if all(waited_s >= patience_s(each) for each in alive):
            break
        time.sleep(_INTERVAL_S)
    return alive


def _send(process: Note, number: signal.Signals) -> None:
    """Through a pidfd: it stands for one process, whatever becomes of the pid."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if start_time(process.pid) == process.started:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

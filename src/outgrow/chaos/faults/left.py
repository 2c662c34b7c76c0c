"""What a drill that was killed may leave behind, in .outgrow/drill.json, so that somebody can undo it.

paused    processes that may have been stopped: SIGCONT
changed   the fleet was given another topology than outgrow.toml's
release   a release that may run, and the one before it, which is to run
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from outgrow.cluster.state import State
from outgrow.errors import Misuse
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note


class Kept(msgspec.Struct):
    """drill.json. Pids of another boot of the machine mean nothing."""

    boot: str = ""
    paused: list[Note] = []
    changed: bool = False
    release: tuple[int, int] | None = None


class Left:
    """The note in the fleet's folder."""

    def __init__(self, directory: Path) -> None:
        folder = State(directory).folder
        self._file = folder / "drill.json"
        self._lock = folder / "drill.lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only drill here. Raises Misuse when there is another."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Misuse("another drill is going on here", hint="wait until it has ended") from None
            yield
        finally:
            os.close(descriptor)

    def add(
        self, paused: Sequence[Note] = (), *, changed: bool = False, release: tuple[int, int] | None = None
    ) -> None:
        """Remember these, before they are done."""
        kept = self._read()
        self._write(
            Kept(
                orphans.boot_id(),
                [*kept.paused, *paused],
                changed=kept.changed or changed,
                release=release or kept.release,
            )
        )

    def forget(self, paused: Sequence[Note] = (), *, changed: bool = False, release: bool = False) -> None:
        """These have been undone."""
        kept = self._read()
        still = [each for each in kept.paused if each not in paused]
        self._write(
            Kept(
                kept.boot,
                still,
                changed=kept.changed and not changed,
                release=None if release else kept.release,
            )
        )

    def wake(self) -> int:
        """Let every process that was left stopped go on. Returns how many there were."""
        paused = self._read().paused
        woken = sum(_continue(each) for each in paused)
        if paused:
            self.forget(paused)
        return woken

    @property
    def changed(self) -> bool:
        """Whether the fleet may be another topology than outgrow.toml's."""
        return self._read().changed

    @property
    def release(self) -> tuple[int, int] | None:
        """The release that a drill has brought, and the one that is to run."""
        return self._read().release

    def _read(self) -> Kept:
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return Kept()
        return kept if kept.boot == orphans.boot_id() else Kept()

    def _write(self, kept: Kept) -> None:
        if not (kept.paused or kept.changed or kept.release):
            self._file.unlink(missing_ok=True)
            return
        temporary = self._file.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.replace(self._file)


def _continue(process: Note) -> bool:
    if orphans.start_time(process.pid) != process.started:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
        return True
    return False

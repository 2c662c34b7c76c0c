"""A copy of the whole database while it serves, by pg_basebackup, and examined before it counts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from outgrow.backups import examining, history
from outgrow.backups.history import Copy, History
from outgrow.errors import BeingChanged, FleetError


def take(line: History, programs: Path, url: str, passwords: Path) -> Copy:
    """Make one. It appears by one rename. Raises FleetError, or BeingChanged when one is being made."""
    began = time.time()
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began))
    place = line.place(name)
    unfinished = place.with_name(f".{name}.unfinished")
    with _alone(line.folder):
        for left in place.parent.glob(".*.unfinished"):
            shutil.rmtree(left)
        _run(
            passwords,
            programs / "pg_basebackup",
            f"--dbname={url}",
            f"--pgdata={unfinished}",
            *("--format=tar", "--compress=client-gzip:1", "--wal-method=stream", "--checkpoint=fast"),
            *("--manifest-checksums=SHA256", "--no-password", f"--label=outgrow {name}"),
        )
        examining.examine(unfinished)
        copy = Copy(name, began, time.time(), _size(unfinished), _first(unfinished))
        history.write(unfinished / "copy.json", copy)
        _onto_the_disk(unfinished)
        unfinished.rename(place)
    return copy


def _first(place: Path) -> str:
    needed = examining.manifest(place)["WAL-Ranges"][0]
    return history.segment(needed["Timeline"], needed["Start-LSN"])


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.iterdir())


def _onto_the_disk(place: Path) -> None:
    """pg_basebackup has done so with its own files."""
    for path in (place / "copy.json", place):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BeingChanged("a copy is just being made", hint="wait for it: `outgrow backup list`") from None
    finally:
        os.close(descriptor)


def _run(passwords: Path, *argv: str | Path) -> None:
    environment = {**os.environ, "PGPASSFILE": str(passwords)}
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise FleetError(f"{Path(argv[0]).name} failed: {' '.join(said[-2:])}")


def shorten(line: History, programs: Path) -> None:
    """Remove the files of the log that the oldest copy does not need. Raises FleetError."""
    copies = line.copies()
    if copies:
        oldest = min(copy.first for copy in copies)
        _run(Path(os.devnull), programs / "pg_archivecleanup", line.wal, oldest)

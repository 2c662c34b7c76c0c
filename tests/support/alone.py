"""Several test processes at a time, and tests that are `alone`: nothing else runs while they measure.

A lock that many may share and one may have alone. Who wants it alone first closes the door for those
who come, so that it is not waiting for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def side_by_side(folder: Path) -> Iterator[None]:
    """With others of this kind, and with nobody who is alone. All processes of a run share the folder."""
    with _locked(folder / "door", fcntl.LOCK_SH):
        pass
    with _locked(folder / "room", fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """With nobody."""
    with _locked(folder / "door", fcntl.LOCK_EX), _locked(folder / "room", fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
        os.close(descriptor)

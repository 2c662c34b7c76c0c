"""Makes sure that a host is dead, and only then cuts its lease short.

A lease says until when its holder may be the primary: nobody else becomes it before, since the holder may
only be slow. Of a host that is certainly empty the fleet knows better: the kernel ends all that is in its
namespace together with its first process, and here it is seen that no process is in it any more.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

EMPTY_WITHIN_S = 10.0
_INTERVAL_S = 0.005


def namespace(pid: int) -> int | None:
    """The namespace in which the children of a host's process are; None when that has ended."""
    try:
        found = os.stat(f"/proc/{pid}/ns/pid_for_children").st_ino
        return found if found != os.stat("/proc/self/ns/pid").st_ino else None
    except OSError:
        return None


def empty(namespace: int) -> bool:
    """Whether nothing runs in it."""
    return not any(_may_be_in(namespace, entry) for entry in os.listdir("/proc") if entry.isdigit())


def _may_be_in(namespace: int, pid: str) -> bool:
    """Where this user may not look, it counts whether the process is in any namespace below this one."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino == namespace
    except PermissionError:
        return _depth(pid) > _depth("self")
    except OSError:
        return False


def _depth(pid: str) -> int:
    """In how many namespaces a process has a number, as proc_pid_status(5) tells it; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return next((len(line.split()) - 1 for line in lines if line.startswith("NSpid:")), 0)


def prove_empty(namespace: int) -> bool:
    """Wait for it. False: something there does not end, so nothing is proven."""
    deadline = time.monotonic() + EMPTY_WITHIN_S
    while not empty(namespace):
        if time.monotonic() > deadline:
            return False
        time.sleep(_INTERVAL_S)
    return True

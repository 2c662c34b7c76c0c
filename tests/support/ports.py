"""Ports and networks of the loopback that no other test process has: several run at a time.

Asking the kernel for any free port is not enough. It gives the same one again, to another process or
as the near end of a connection, before the server that it was meant for listens there.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
from collections.abc import Sequence

PORTS = range(10_000, 32_000)
"""Below those that the kernel gives to connections (ip_local_port_range)."""

NETWORKS = range(1, 255)
_NETWORKS_AT = 100_000
"""Where they are in the file of reservations, in which each port is the byte of its number."""


def free_port() -> int:
    """A port on which nobody listens, and which no other test process will get while this one lives."""
    first = random.choice(PORTS)
    return _reserved([*range(first, PORTS.stop), *range(PORTS.start, first)])


def free_network() -> str:
    """The first three numbers of 254 loopback addresses, likewise. No fleet takes any of them by itself."""
    return f"127.50.{_reserved([_NETWORKS_AT + each for each in NETWORKS]) - _NETWORKS_AT}"


_taken: set[int] = set()
_file: list[int] = []


def _reserved(numbers: Sequence[int]) -> int:
    for number in numbers:
        if number not in _taken and _locked(number) and (number >= _NETWORKS_AT or _silent(number)):
            _taken.add(number)
            return number
    raise RuntimeError("every port of the tests is taken")


def _locked(number: int) -> bool:
    """A lock on one byte of a file that all runs share, which the kernel drops with the process."""
    if not _file:
        path = f"/tmp/outgrow-test-ports-{os.getuid()}"
        _file.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        fcntl.lockf(_file[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except OSError:
        return False
    return True


def _silent(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True

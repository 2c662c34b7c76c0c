"""A server is cut off from others: its connections to them are shut down as often as it makes them.

    the server's process ── socket ──╳── PostgreSQL        pidfd_getfd(2): a copy of its socket, then
                              ▲                            shutdown(2): both ends see the connection end
                              └ a helper, every millisecond

PostgreSQL and the other servers are not touched. A new connection needs longer to become usable than the
helper to find it, as long as the helper gets a core when it wants one: as root it goes before every program
that is no real-time one. Of anybody else, on a busy machine, a request may slip through. And what is sent
without a handshake, as in plain HTTP, may be heard at the other end: the answer never comes back.

It may do so to processes that it could debug: as root, or as the same user where the kernel lets users
debug what is theirs (kernel.yama.ptrace_scope = 0).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
import time
from collections.abc import Collection, Sequence

from outgrow.chaos.faults import helper
from outgrow.supervisor.orphans import Note

LOOK_S = 0.001
PIDFD_GETFD = 438
"""The number of the system call, the same on every architecture; Python has no name for it."""

_libc = ctypes.CDLL(None, use_errno=True)


Target = tuple[str, int]
"""Host and port."""


class Cut(helper.Helped):
    """Between these processes and whatever listens at the targets, until it is undone."""

    def __init__(self, says: str, processes: Sequence[Note], targets: Sequence[Target]) -> None:
        pids = [str(each.pid) for each in processes]
        places = ",".join(f"{host}:{port}" for host, port in targets)
        super().__init__(says, "outgrow.chaos.faults.cut", [places, *pids])


class Cutter:
    """Of one process. `seen` are sockets that have been looked at, by descriptor and inode."""

    def __init__(self, pid: int, targets: Collection[Target]) -> None:
        self._folder = f"/proc/{pid}/fd"
        self._descriptor = os.pidfd_open(pid)
        self._targets = targets
        self._seen: set[tuple[str, str]] = set()

    def cut(self) -> int:
        """Shut down what leads to a target; returns how many. Raises PermissionError."""
        count, there = 0, set[tuple[str, str]]()
        with contextlib.suppress(FileNotFoundError):
            for number in os.listdir(self._folder):
                with contextlib.suppress(OSError):
                    there.add((number, os.readlink(f"{self._folder}/{number}")))
        for number, what in there - self._seen:
            if what.startswith("socket:"):
                count += self._shut(int(number), (number, what))
            else:
                self._seen.add((number, what))
        self._seen &= there
        return count

    def _shut(self, number: int, entry: tuple[str, str]) -> bool:
        """Whether it led there. A socket that has no peer yet is looked at again."""
        copy = _libc.syscall(PIDFD_GETFD, self._descriptor, number, 0)
        if copy < 0:
            if ctypes.get_errno() == errno.EPERM:
                raise PermissionError("this user may not touch the server's sockets (ptrace_scope)")
            return False
        with socket.socket(fileno=copy) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                self._seen.add(entry)
                return False
            try:
                peer = connection.getpeername()
            except OSError:  # it listens, or is about to connect
                return False
            self._seen.add(entry)
            if peer[:2] not in self._targets:
                return False
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            return True


def main(arguments: list[str]) -> int:
    """Cut until standard input ends."""
    places, *pids = arguments
    targets = {(host, int(port)) for host, _, port in (each.rpartition(":") for each in places.split(","))}
    cutters = [Cutter(int(pid), targets) for pid in pids]
    with contextlib.suppress(PermissionError):  # to be faster than a handshake on a busy machine
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        for pid in pids:
            Cutter(int(pid), ()).cut()  # it cuts nothing, and finds out whether it may
    except PermissionError as error:
        return helper.refuse(str(error))
    helper.wait()
    for each in cutters:
        each.cut()
    helper.begun()
    while helper.goes_on():
        for each in cutters:
            each.cut()
        time.sleep(LOOK_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

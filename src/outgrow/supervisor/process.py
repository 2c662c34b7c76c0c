"""One child process: a program started, watched and ended. Linux: it needs pidfd (5.3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from outgrow.workload import Workload

FIRST_INHERITED = 3
"""Where the sockets begin, as systemd hands them over (sd_listen_fds(3))."""


def unprivileged() -> list[str]:
    """What to put before a program that refuses root, or that must not have it.

    A user namespace changes the uid that the program sees; files on disk keep their owner. `unshare`
    execs, so the pid is the program's own.
    """
    if os.geteuid() != 0:
        return []
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]


class Process:
    """A running child, leader of its own process group."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes]) -> None:
        self.pid = pid
        self._popen = popen
        self._ended = asyncio.get_running_loop().create_future()
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._on_end)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        if not self._ended.done():
            self._ended.set_result(self._popen.wait())

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.done()

    async def wait(self) -> int:
        """Its exit code; negative for the signal that ended it."""
        return int(await asyncio.shield(self._ended))

    async def stop(self, name: str, grace_s: float) -> None:
        """Ask it to end by that signal; after `grace_s` its whole group is killed."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.Signals[f"SIG{name}"])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.wait()
        self.kill_group()
        await self.wait()

    def kill_group(self) -> None:
        """Whatever is left of it and of its children ends now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def start(
    workload: Workload, environment: dict[str, str], log: BinaryIO, sockets: Sequence[socket.socket]
) -> Process:
    """Start the program. Raises OSError when it cannot be executed.

    Its output goes straight into the log file, so it can go on writing when the supervisor dies.
    """
    argv = [*(unprivileged() if workload.unprivileged else []), *workload.argv]
    variables = dict(environment)
    if sockets:
        variables["OUTGROW_LISTEN_FDS"] = str(len(sockets))
    descriptors = [each.fileno() for each in sockets]

    def hand_over() -> None:
        # Python's own descriptors close on exec (PEP 446); these alone are inherited.
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, FIRST_INHERITED + number, inheritable=True)

    popen = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=variables,
        cwd=workload.directory,
        start_new_session=True,
        close_fds=False,
        preexec_fn=hand_over if descriptors else None,
    )
    return Process(popen.pid, popen)


def write_files(workload: Workload) -> None:
    """Put the workload's files in place, each whole or not at all."""
    for file in workload.files:
        path = Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, file.mode)
        with os.fdopen(descriptor, "w") as out:
            os.fchmod(out.fileno(), file.mode)
            out.write(file.text)
        os.replace(temporary, path)

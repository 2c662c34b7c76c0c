"""One child process: a program started, watched and ended. Linux: it needs pidfd (5.3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from outgrow.errors import FleetError
from outgrow.workload import File

LISTENING = "OUTGROW_LISTEN_FDS"
"""Tells a child the numbers of its inherited sockets, with commas between them."""

KILLED_WITHIN_S = 5.0


def unprivileged() -> list[str]:
    """What to put before a program that refuses root, or that must not have it.

    A user namespace changes the uid that the program sees; files on disk keep their owner. `unshare`
    execs, so the pid is the program's own.
    """
    if os.geteuid() != 0:
        return []
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]


class Process:
    """A running child, leader of its own session and process group."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = os.pidfd_open(self.pid)
        self._loop.add_reader(self._descriptor, self._on_end)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        # Until it is reaped, the number of its group can belong to nobody else.
        self.kill()
        self._ended.set_result(self._popen.wait())

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.done()

    async def wait(self) -> int:
        """Its exit code; negative for the signal that ended it. What was left of its group has ended too."""
        return await asyncio.shield(self._ended)

    async def stop(self, name: str, grace_s: float) -> None:
        """Ask it to end by that signal; after `grace_s` its whole group is killed.

        Raises FleetError when it does not end even so.
        """
        if not self.running:
            return
        os.kill(self.pid, signal.Signals[f"SIG{name}"])  # a zombie at worst: it is not reaped yet
        if await self._ends_within(grace_s):
            return
        self.kill()
        if not await self._ends_within(KILLED_WITHIN_S):
            raise FleetError(
                f"process {self.pid} does not end, though it was killed",
                hint="the kernel waits for a disk or a file server that does not answer",
            )

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait()
        return not self.running

    def kill(self) -> None:
        """Its whole group ends now."""
        if self.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    output: BinaryIO | int,
    directory: str | None = None,
    sockets: Sequence[socket.socket] = (),
) -> Process:
    """Start a program. Raises OSError when it cannot be executed.

    Its output goes straight into the log file, so it can go on writing when the supervisor dies. Of the
    open descriptors it inherits the sockets alone, under the numbers that they have here: to renumber
    them, code would have to run between fork and exec, which is unsafe beside threads.
    """
    descriptors = [each.fileno() for each in sockets]
    variables = {name: value for name, value in environment.items() if name != LISTENING}
    if descriptors:
        variables[LISTENING] = ",".join(map(str, descriptors))
    popen = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=variables,
        cwd=directory,
        start_new_session=True,
        pass_fds=descriptors,
    )
    try:
        return Process(popen)
    except BaseException:  # no descriptor is left to watch it with
        popen.kill()
        popen.wait()
        raise


def write_files(files: Sequence[File]) -> None:
    """Put the files in place, each whole or not at all. Raises OSError where this user may not."""
    for file in files:
        path = Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, file.mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), file.mode)
            out.write(file.text)
        os.replace(temporary, path)

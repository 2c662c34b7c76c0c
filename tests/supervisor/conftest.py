"""Supervisors over real child processes, which are small Python and shell programs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from outgrow.supervisor import orphans
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.node import Change
from outgrow.supervisor.supervisor import Supervisor
from outgrow.workload import Address, Workload
from tests.support.ports import free_port

PATIENCE_S = 30.0

SERVER = """
import os, socket
numbers = os.environ["OUTGROW_LISTEN_FDS"].split(",")
listener = socket.socket(fileno=int(numbers[0]))
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    body = str(os.getpid()).encode()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    connection.close()
"""
"""Answers each request with its pid, on the first socket that it has inherited."""


def python(text: str, *arguments: object) -> tuple[str, ...]:
    """Command line of a Python program."""
    return (sys.executable, "-S", "-c", text, *map(str, arguments))


def shell(text: str, *arguments: object) -> tuple[str, ...]:
    """Command line of a shell program."""
    return ("/bin/sh", "-c", text, "sh", *map(str, arguments))


def forever(name: str, **more: Any) -> Workload:
    """A service that does nothing."""
    return Workload(name, ("sleep", "1000"), **more)


def free_address() -> Address:
    return Address("127.0.0.1", free_port())


async def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(0.01)


def runs(pid: int) -> bool:
    return orphans.start_time(pid) is not None


def number_in(path: Path) -> int | None:
    """The number that a child has written there, once it has."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else None


def kill(pid: int | None) -> int:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


class Supervised:
    """A supervisor with everything that it has told."""

    def __init__(self, directory: Path, name: str) -> None:
        self.fleet = f"test-{os.getpid()}-{name}"
        self.logs = Logs(directory / "logs")
        self.changes: list[Change] = []
        self.notes: dict[str, orphans.Note] = {}
        self.supervisor = Supervisor(self.logs, self.fleet, tell=self.changes.append, noted=self._noted)

    def _noted(self, notes: Any) -> None:
        self.notes = dict(notes)

    async def start(self, *workloads: Workload) -> None:
        await self.supervisor.start(workloads)

    async def stop(self) -> None:
        await self.supervisor.stop()

    def __getitem__(self, name: str) -> Any:
        return self.supervisor.nodes[name]

    def states(self, node: str) -> list[str]:
        return [change.state for change in self.changes if change.node == node]

    def log(self, node: str) -> str:
        return self.logs.path(node).read_text()

    def processes(self) -> list[int]:
        return [each.pid for each in orphans.find(self.fleet, self.notes.values())]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Supervised]:
    """A supervisor that has ended after the test, with all that it has started."""
    made = Supervised(tmp_path, tmp_path.name)
    yield made
    await made.stop()
    assert made.processes() == [], "a process was left behind"

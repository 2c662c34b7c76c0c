"""Real fleets for tests: the application that `outgrow new` makes, run by a supervisor of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import httpx

from outgrow import cluster, stages
from outgrow.cluster import NodeStatus, Status
from outgrow.cluster.state import State
from outgrow.supervisor.node import Change
from outgrow.topology import Topology, parse_file
from tests.support.ports import free_port

T = TypeVar("T")

WITHIN_S = 60.0


def make_application(directory: Path) -> Path:
    """What `outgrow new` makes."""
    template = Path(str(resources.files("outgrow.cli") / "template"))
    shutil.copytree(template, directory, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (directory / "outgrow.toml", directory / "app.py"):
        file.write_text(file.read_text().replace("application-name", "hello"))
    return directory


def wait_until(condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> None:
    """Wait for it with a deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it, also from inside a running loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class RunningFleet:
    """A fleet in a process of its own. `end` leaves nothing behind."""

    def __init__(self, directory: Path, stage: str = "single-server") -> None:
        self.directory = directory
        self.stage = stage
        self.port = free_port()
        self.changes: list[Change] = []
        self.state = State(directory)

    @property
    def topology(self) -> Topology:
        """outgrow.toml at the stage of this fleet."""
        read = parse_file(self.directory / "outgrow.toml")
        return stages.apply(read, self.stage).with_port(self.port)

    @property
    def url(self) -> str:
        """Where the application answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Status:
        """Start it detached, as `outgrow up --detach` does."""
        return run(cluster.start_detached(self.topology, self.directory, tell=self.changes.append))

    def status(self) -> Status:
        """How it is."""
        return run(cluster.status(self.directory))

    def node(self, name: str) -> NodeStatus:
        """One of its nodes."""
        return next(node for node in self.status().nodes if node.name == name)

    def end(self) -> bool:
        """End it, or what is left of it; returns whether there was any."""
        return run(cluster.down(self.directory, tell=self.changes.append))

    def kill(self, name: str) -> int:
        """SIGKILL a node and return its pid."""
        pid = self.node(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_supervisor(self) -> None:
        """SIGKILL the supervisor itself, and wait until the kernel has taken its lock."""
        pid = self.state.holder()
        assert pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.state.holder() is None, "the lock of a dead supervisor")

    def pids(self) -> list[int]:
        """Every process that carries this fleet's mark."""
        mark = f"OUTGROW_FLEET={self.state.fleet}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return [pid for pid in found if alive(pid)]

    def write(self, text: str) -> str:
        """Add a note; returns its id. Raises httpx.HTTPError when it was not acknowledged."""
        answer = httpx.post(f"{self.url}/notes", json={"text": text}, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def read(self, note: str) -> str | None:
        """The text of a note, or None when there is none."""
        answer = httpx.get(f"{self.url}/notes/{note}", timeout=10)
        return None if answer.status_code == 404 else str(answer.raise_for_status().json()["text"])

    def healthy(self) -> bool:
        """Whether it can do its work."""
        try:
            return httpx.get(f"{self.url}/health/deep", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

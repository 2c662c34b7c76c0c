"""Faults against real processes: they do what they say, and are undone, also when the drill is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.exceptions import OutOfMemoryError

from outgrow import endpoints
from outgrow.chaos.faults.cut import Cut
from outgrow.chaos.faults.fault import Fault, injected
from outgrow.chaos.faults.fill import Fill
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.faults.left import Left
from outgrow.chaos.faults.pause import Pause
from outgrow.chaos.faults.slow import Slow
from outgrow.cluster.state import State
from outgrow.errors import Misuse
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note
from tests.support.cache import CacheServer
from tests.support.fleets import wait_until

COUNTING = "import sys\nn = 0\nwhile True:\n    n += 1\n    if n % 2000 == 0: print(n, flush=True)\n"
CONNECTING = """
import socket, sys, time
print("up", flush=True)
while True:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2) as each:
            time.sleep(0.03)  # as a handshake takes
            each.sendall(b"x")
            print("answered" if each.recv(1) else "closed", flush=True)
    except OSError:
        print("closed", flush=True)
    time.sleep(0.01)
"""


class Child:
    """A process of ours, whose output is kept."""

    def __init__(self, code: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(lambda: self.lines, "the child's first line")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())

    @property
    def note(self) -> Note:
        return Note(self.process.pid, orphans.start_time(self.process.pid) or 0)

    @property
    def state(self) -> str:
        """Its state as the kernel has it: T is stopped."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0]

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child(COUNTING)
    yield made
    made.end()


@pytest.fixture
def left(tmp_path: Path) -> Left:
    State(tmp_path).create()
    return Left(tmp_path)


async def test_kill(child: Child, left: Left) -> None:
    async with injected(Kill("child", [child.note]), left, time.monotonic):
        assert child.process.wait(5) == -signal.SIGKILL


async def test_a_pid_that_somebody_else_has_now_is_left_alone(child: Child, left: Left) -> None:
    other = Note(child.process.pid, child.note.started + 1)
    async with injected(Kill("child", [other]), left, time.monotonic):
        await asyncio.sleep(0.2)
    assert child.process.poll() is None


async def test_pause_and_undo(child: Child, left: Left) -> None:
    async with injected(Pause("child", [child.note]), left, time.monotonic):
        wait_until(lambda: child.state == "T", "it to stand still")
    wait_until(lambda: child.state != "T", "it to go on")
    assert left.wake() == 0, "nothing is left"


async def test_it_is_undone_when_the_drill_is_cancelled(child: Child, left: Left) -> None:
    async def drill() -> None:
        async with injected(Pause("child", [child.note]), left, time.monotonic):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(drill())
    await asyncio.sleep(0.1)
    wait_until(lambda: child.state == "T", "it to stand still")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wait_until(lambda: child.state != "T", "it to go on")


async def test_slow(child: Child, left: Left) -> None:
    """CPU time is what it gets, however busy the machine is."""

    def cpu_s() -> float:
        fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async with injected(Slow("child", [child.note], 0.2), left, time.monotonic):
        before = cpu_s()
        await asyncio.sleep(2)
        assert (cpu_s() - before) / 2 < 0.45
    wait_until(lambda: child.state != "T", "it to go on")


async def test_fill(left: Left, tmp_path: Path) -> None:
    server = CacheServer("4mb")
    secrets = tmp_path / "secrets.json"
    endpoints.write(secrets, endpoints.Secrets(application="00" * 32, passwords={"cache": server.password}))
    try:
        server.start()
        wait_until(server.answers, "it to answer")
        with server.client as client:
            client.set("goes", "1", ex=3600)
            async with injected(Fill("cache", [server.url], "test", secrets), left, time.monotonic):
                with pytest.raises(OutOfMemoryError):
                    client.set("value", "x" * 1000, ex=3600)
                assert not client.exists("goes"), "what may go had to"
            wait_until(lambda: client.dbsize() == 0, "its keys to be gone")
    finally:
        server.stop()


@pytest.fixture
def database() -> Iterator[int]:
    """Something that answers at a port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if connection.recv(1):
                connection.sendall(b"y")

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


async def test_cut_one_of_two(database: int, left: Left) -> None:
    lost, spared = Child(CONNECTING, str(database)), Child(CONNECTING, str(database))
    try:
        wait_until(lambda: "answered" in lost.lines and "answered" in spared.lines, "both to be answered")
        async with injected(Cut("lost", [lost.note], [("127.0.0.1", database)]), left, time.monotonic):
            await asyncio.sleep(0.2)
            lost.lines.clear()
            spared.lines.clear()
            wait_until(lambda: len(lost.lines) > 20 and len(spared.lines) > 20, "more of both")
            assert lost.lines.count("closed") > lost.lines.count("answered") * 9
            assert set(spared.lines) == {"answered"}
        lost.lines.clear()
        wait_until(lambda: "answered" in lost.lines, "it to have its database again, by itself")
    finally:
        lost.end()
        spared.end()


KILLED = """
import asyncio, sys, time
from pathlib import Path
from outgrow.chaos.faults.fault import injected
from outgrow.chaos.faults.left import Left
from outgrow.chaos.faults.{module} import {kind}
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note

async def main():
    pid = int(sys.argv[2])
    fault = {kind}("child", [Note(pid, orphans.start_time(pid))]{more})
    async with injected(fault, Left(Path(sys.argv[1])), time.monotonic):
        print("there", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize(("module", "kind", "more"), [("pause", "Pause", ""), ("slow", "Slow", ", 0.01")])
def test_a_drill_that_is_killed_leaves_a_note(
    child: Child, left: Left, tmp_path: Path, module: str, kind: str, more: str
) -> None:
    code = KILLED.format(module=module, kind=kind, more=more)
    drill = Child(code, str(tmp_path), str(child.process.pid))
    assert drill.lines == ["there"]
    wait_until(lambda: child.state == "T", "it to stand still")
    drill.end()
    left.wake()
    wait_until(lambda: all(_runs(child) for _ in range(20)), "it to go on for good")
    assert left.wake() == 0, "the note is gone"


def _runs(child: Child) -> bool:
    time.sleep(0.005)
    return child.state != "T"


def test_notes_of_another_boot_or_damaged_ones_mean_nothing(child: Child, left: Left, tmp_path: Path) -> None:
    left.add([child.note], changed=True)
    file = State(tmp_path).folder / "drill.json"
    file.write_text(file.read_text().replace(orphans.boot_id(), "another"))
    assert left.wake() == 0 and not left.changed
    file.write_text("{")
    assert left.wake() == 0 and not left.changed


def test_one_drill_at_a_time(left: Left) -> None:
    with left.locked(), pytest.raises(Misuse, match="another drill"), left.locked():
        pass
    with left.locked():
        pass


def test_every_fault_is_one() -> None:
    faults: list[Fault] = [
        Kill("x", []),
        Pause("x", []),
        Slow("x", [], 0.5),
        Cut("x", [], [("127.0.0.1", 1)]),
        Fill("x", ["redis://a@127.0.0.1:1"], "a", Path("secrets.json")),
    ]
    assert [each.lasts for each in faults] == [False, True, True, True, True]

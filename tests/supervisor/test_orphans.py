"""Children whose supervisor was killed: found and ended, all of them, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from outgrow.errors import FleetError
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import MARK, Note
from outgrow.workload import Stop
from tests.supervisor.conftest import PATIENCE_S, number_in, runs, shell

SUPERVISOR = """
import asyncio, json, os, sys
from pathlib import Path
import msgspec
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.supervisor import Supervisor
from outgrow.workload import Stop, Workload
fleet, folder, dies_before_its_note = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "True"

def noted(notes):
    if dies_before_its_note and len(notes) == 2:
        os.kill(os.getpid(), 9)
    (folder / "notes.new").write_bytes(msgspec.json.encode(notes))
    os.replace(folder / "notes.new", folder / "notes")

async def main():
    supervisor = Supervisor(Logs(folder / "logs"), fleet, noted=noted)
    await supervisor.start([
        Workload("db", ("sh", "-c", "env -i sleep 1000 & sleep 1000"), stop=Stop("INT", 0.5)),
        Workload("app", ("sleep", "1000")),
    ])
    (folder / "ready").touch()
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.01)


class Killed:
    """A fleet whose supervisor, a process of its own, gets SIGKILL."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = f"test-{os.getpid()}-{name}"
        self.folder = folder / name
        self.folder.mkdir()

    def start(self, *, dies_before_its_note: bool = False) -> None:
        arguments = [self.name, str(self.folder), str(dies_before_its_note)]
        supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, *arguments])
        try:
            wait_until(
                lambda: (self.folder / "ready").exists() or supervisor.poll() is not None,
                "the fleet to start",
            )
            if not dies_before_its_note:
                # The shell of db has started what has no mark.
                leader = self.notes["db"].pid
                wait_until(lambda: any(session_of(pid) == leader for pid in unmarked()), "its child")
        finally:
            supervisor.kill()
            assert supervisor.wait() == -signal.SIGKILL

    @property
    def notes(self) -> dict[str, Note]:
        return msgspec.json.decode((self.folder / "notes").read_bytes(), type=dict[str, Note])

    def find(self, *, noted: bool = True) -> list[Note]:
        return orphans.find(self.name, self.notes.values() if noted else ())


def session_of(pid: int) -> int | None:
    seen = orphans._look(pid)
    return seen.session if seen is not None else None


def unmarked() -> list[int]:
    """The processes `sleep 1000` with an empty environment."""
    return [
        pid
        for pid, _ in orphans._running()
        if orphans._environment(pid) == [b""] and b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Killed]]:
    made: list[Killed] = []

    def killed(name: str, *, dies_before_its_note: bool = False) -> Killed:
        made.append(Killed(tmp_path, name))
        made[-1].start(dies_before_its_note=dies_before_its_note)
        return made[-1]

    yield killed
    for each in made:
        orphans.end(each.find())
        assert each.find() == []


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of nobody's fleet, of the same name as those of every fleet here."""
    with subprocess.Popen(["sleep", "1000"], env={MARK: "another"}, start_new_session=True) as process:
        yield process
        process.kill()


def test_all_of_one_fleet_and_none_of_the_other(
    make: Callable[..., Killed], stranger: subprocess.Popen[bytes]
) -> None:
    first, second = make("first"), make("second")
    found = first.find()
    assert {each.pid for each in first.notes.values()} < {each.pid for each in found}
    assert len(found) == 4, "the shell, its two children (one has no mark) and app"
    theirs = second.find()
    assert orphans.end(found) == 4
    assert first.find() == [] and not any(runs(each.pid) for each in found)
    assert second.find() == theirs and all(runs(each.pid) for each in theirs)
    assert stranger.poll() is None


def test_born_and_not_noted_when_the_supervisor_died(make: Callable[..., Killed]) -> None:
    fleet = make("hasty", dies_before_its_note=True)
    assert set(fleet.notes) == {"db"}
    commands = [Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in fleet.find()]
    assert commands.count(b"sleep\x001000\0") >= 2, "app, and what db has started"
    orphans.end(fleet.find())
    assert fleet.find() == []


def test_without_any_note_the_mark_is_enough(make: Callable[..., Killed]) -> None:
    fleet = make("forgetful")
    assert {each.pid for each in fleet.notes.values()} <= {each.pid for each in fleet.find(noted=False)}


def test_a_pid_that_belongs_to_somebody_else_by_now(stranger: subprocess.Popen[bytes]) -> None:
    own = orphans.start_time(stranger.pid)
    assert own is not None
    recycled = Note(stranger.pid, own - 1)
    assert orphans.find("mine", [recycled]) == []
    assert orphans.end([recycled]) == 0
    orphans._send(recycled, signal.SIGKILL)
    assert stranger.poll() is None
    assert orphans.end([Note(2**22 + 1, 1)]) == 0, "a pid that nobody has"


def test_the_mark_counts_as_a_whole(stranger: subprocess.Popen[bytes]) -> None:
    assert orphans.find("anothe", ()) == [] and orphans.find("another-one", ()) == []
    assert [each.pid for each in orphans.find("another", ())] == [stranger.pid]


def test_neither_itself_nor_who_has_started_it(stranger: subprocess.Popen[bytes]) -> None:
    """`outgrow down`, called in a shell that has the environment of a node."""
    look = "from outgrow.supervisor import orphans; print([n.pid for n in orphans.find('another', ())])"
    argv = shell('"$1" -c "$2"; true', sys.executable, look)
    said = subprocess.run(
        argv, env={**os.environ, MARK: "another"}, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str([stranger.pid])


def test_who_ignores_the_request_is_killed() -> None:
    with subprocess.Popen(shell("trap '' TERM; echo; exec sleep 1000"), stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None and stubborn.stdout.readline()
        assert orphans.end([orphans.note(stubborn.pid, Stop(grace_s=0.2))]) == 1
        assert stubborn.wait() == -signal.SIGKILL


def test_it_is_asked_with_the_signal_that_it_likes(tmp_path: Path) -> None:
    trap = f"trap 'echo asked > {tmp_path}/asked; exit' INT"
    with subprocess.Popen(
        shell(f"{trap}; echo $$ > {tmp_path}/ready; while :; do sleep 0.01; done")
    ) as polite:
        wait_until(lambda: number_in(tmp_path / "ready"), "the trap")
        orphans.end([orphans.note(polite.pid, Stop("INT"))])
        assert polite.wait() == 0 and (tmp_path / "asked").exists()


def test_what_others_need_ends_after_them(tmp_path: Path) -> None:
    """The server ends only when it has asked its database once more."""
    answer = f"trap 'test -e {tmp_path}/server || echo early > {tmp_path}/early; exit' TERM"
    ask = f"trap 'sleep 0.3; touch {tmp_path}/server; exit' TERM"
    running = [
        subprocess.Popen(shell(f"{trap}; touch {tmp_path}/{name}; while :; do sleep 0.01; done"))
        for name, trap in (("database-ready", answer), ("server-ready", ask))
    ]
    try:
        wait_until(lambda: len(list(tmp_path.glob("*-ready"))) == 2, "the traps")
        database, server = running
        assert orphans.end([orphans.note(database.pid, Stop(), 1), orphans.note(server.pid, Stop(), 0)]) == 2
        assert (tmp_path / "server").exists() and not (tmp_path / "early").exists()
    finally:
        for each in running:
            each.kill()
            each.wait()


def test_what_cannot_be_ended_is_told(
    stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "_send", lambda process, number: None)  # as if it were another user's
    monkeypatch.setattr(orphans, "KILLED_WITHIN_S", 0.1)
    with pytest.raises(FleetError, match=f"do not end: {stranger.pid}"):
        orphans.end([orphans.note(stranger.pid, Stop(grace_s=0.1))])


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["true"]) as ended:
        wait_until(lambda: orphans.start_time(ended.pid) is None, "its end")
        assert orphans.note(ended.pid, Stop()).started == 0
        assert orphans.find("mine", [Note(ended.pid, 0)]) == []

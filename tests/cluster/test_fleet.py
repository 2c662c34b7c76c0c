"""The local fleet: one life of it, then several side by side, then everything that can be wrong."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import httpx
import pytest

from outgrow import cluster
from outgrow.cluster.state import State
from outgrow.errors import (
    ApplicationBroken,
    FleetBusy,
    FleetError,
    FleetNotRunning,
    NodeFailed,
    PortTaken,
    StateUnreadable,
)
from tests.cluster.conftest import MakeFleet
from tests.support.fleets import RunningFleet, make_application, wait_until


def test_one_life(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    ready = fleet.start()
    assert ready.url == fleet.url and ready.stage == "single-server" and ready.epoch == 1
    states = [(change.node, change.state) for change in fleet.changes]
    assert states == [
        *(("migrate", "starting"), ("migrate", "done")),
        *(("app", "starting"), ("app", "ready")),
        *(("dashboard", "starting"), ("dashboard", "ready")),
    ]

    note = fleet.write("hello")
    assert fleet.read(note) == "hello"
    app = fleet.node("app")
    assert app.state == "ready" and app.address == f"127.0.0.1:{fleet.port}"
    assert app.memory is not None and 20e6 < app.memory < 200e6
    assert app.cpu is not None and 0 <= app.cpu < 2

    assert fleet.end() is True
    assert fleet.end() is False
    assert fleet.state.holder() is None and not fleet.state.control.exists()
    with pytest.raises(FleetNotRunning):
        fleet.status()

    assert fleet.start().epoch == 2
    assert fleet.read(note) == "hello", "the data outlives the fleet"


def test_what_it_keeps_is_for_its_owner_alone(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.start()
    for name in ("secrets.json", "operator-secrets.json", "control.sock", "endpoints.json", "logs/app.log"):
        mode = stat.S_IMODE((fleet.state.folder / name).stat().st_mode)
        assert mode & 0o077 == 0, f"{name} is open to others: {mode:o}"
    assert stat.S_IMODE(fleet.state.folder.stat().st_mode) == 0o700
    secret = json.loads((fleet.state.folder / "secrets.json").read_text())["application"]
    for pid in fleet.pids():
        assert secret not in Path(f"/proc/{pid}/cmdline").read_text()
        assert secret not in Path(f"/proc/{pid}/environ").read_text(errors="replace")
    assert secret not in (fleet.state.folder / "endpoints.json").read_text()


def test_a_killed_node_comes_back_and_no_connection_is_refused(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.start()
    before = fleet.kill("app")
    # The supervisor holds the listening socket: who connects now waits, and is answered.
    assert httpx.get(f"{fleet.url}/health", timeout=20).status_code == 200
    wait_until(lambda: fleet.node("app").state == "ready", "the node again")
    after = fleet.node("app")
    assert after.pid not in (None, before) and after.restarts == 1


def test_several_side_by_side(make_fleet: MakeFleet) -> None:
    first, second = make_fleet("first"), make_fleet("second")
    first.start()
    second.start()
    note = first.write("mine")
    assert second.read(note) is None
    first.end()
    assert first.pids() == [] and second.healthy()


def test_two_supervisors_in_one_directory(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.start()
    with pytest.raises(FleetBusy, match="already running"):
        fleet.start()
    assert fleet.healthy()


def test_after_sigkill_of_the_supervisor_down_ends_what_is_left(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.start()
    fleet.kill_supervisor()
    assert fleet.pids() and fleet.healthy(), "the application serves on meanwhile"
    with pytest.raises(FleetNotRunning):
        fleet.status()
    assert fleet.end() is True
    assert fleet.pids() == []


def test_after_sigkill_of_the_supervisor_the_next_start_takes_over(make_fleet: MakeFleet) -> None:
    fleet, other = make_fleet("first"), make_fleet("second")
    fleet.start()
    other.start()
    theirs = other.pids()
    left = fleet.pids()
    fleet.kill_supervisor()
    fleet.start()
    assert fleet.healthy() and not set(left) & set(fleet.pids())
    assert other.pids() == theirs, "another fleet was touched"


def test_orphans_without_state(make_fleet: MakeFleet) -> None:
    """Without notes the mark in their environment is enough."""
    fleet = make_fleet()
    fleet.start()
    fleet.kill_supervisor()
    (fleet.state.folder / "state.json").write_text('{"half": ')
    with pytest.raises(StateUnreadable, match=r"state\.json.*\n.*outgrow down"):
        fleet.start()
    assert fleet.end() is True and fleet.pids() == []
    fleet.start()


def test_a_taken_port_leaves_nothing(make_fleet: MakeFleet) -> None:
    first, second = make_fleet("first"), make_fleet("second")
    first.start()
    second.port = first.port
    with pytest.raises(PortTaken, match="--port"):
        second.start()
    assert second.pids() == [] and first.healthy()


@pytest.mark.parametrize(
    ("file", "text", "error", "says"),
    [
        ("app.py", "1 / 0\n", ApplicationBroken, "app.py, line 1: ZeroDivisionError"),
        ("app.py", "app = None\n", ApplicationBroken, "not an ASGI application"),
        ("migrations/versions/0001_notes.py", "revision = \n", ApplicationBroken, "SyntaxError"),
        ("app.py", "import os\nos._exit(5)\n", NodeFailed, "exit code 5"),
    ],
)
def test_what_does_not_start(
    make_fleet: MakeFleet, file: str, text: str, error: type[Exception], says: str
) -> None:
    fleet = make_fleet()
    (fleet.directory / file).write_text(text)
    with pytest.raises(error, match=says):
        fleet.start()
    assert fleet.pids() == [] and fleet.state.holder() is None


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    directory = make_application(tmp_path / "hello")
    (directory / ".outgrow").write_text("a file in the way")
    with pytest.raises(FleetError, match=r"\.outgrow cannot be written"):
        RunningFleet(directory).start()


def test_a_path_too_long_for_a_socket(tmp_path: Path, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("/".join(["deep" * 10] * 4))
    fleet.start()
    control = fleet.state.control
    assert not control.is_relative_to(fleet.directory)
    assert stat.S_IMODE(control.parent.stat().st_mode) == 0o700
    assert fleet.status().url == fleet.url
    fleet.end()
    assert not control.exists()


async def test_stopped_while_it_starts(tmp_path: Path) -> None:
    """`stop`, and a cancelled task, at any moment of the start: nothing stays."""
    directory = make_application(tmp_path / "hello")
    fleet = RunningFleet(directory)
    for delay_s in (0.0, 0.05, 0.3, 1.0):
        for cancel in (False, True):
            stop = asyncio.Event()
            task = asyncio.ensure_future(
                cluster.Fleet(fleet.topology, directory).run(
                    tell=lambda change: None, ready=lambda status: None, stop=stop
                )
            )
            await asyncio.sleep(delay_s)
            if cancel:
                task.cancel()
            else:
                stop.set()
            async with asyncio.timeout(30):
                await asyncio.gather(task, return_exceptions=True)
            assert fleet.pids() == [] and fleet.state.holder() is None


async def test_a_talker_on_the_control_socket_does_no_harm(tmp_path: Path) -> None:
    directory = make_application(tmp_path / "hello")
    fleet = RunningFleet(directory)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.ensure_future(
        cluster.Fleet(fleet.topology, directory).run(
            tell=lambda change: None, ready=lambda status: ready.set(), stop=stop
        )
    )
    try:
        async with asyncio.timeout(60):
            await ready.wait()
        for said in (b"nonsense\n", b'{"command": "fly"}\n', b"x" * 100_000 + b"\n", b""):
            reader, writer = await asyncio.open_unix_connection(State(directory).control)
            writer.write(said)
            writer.write_eof()
            answer = await reader.read()
            assert not said or b"error" in answer
            writer.close()
        assert (await cluster.status(directory)).application == "hello"
    finally:
        stop.set()
        await task


def test_the_lock_of_a_reader_does_not_stop_a_start(make_fleet: MakeFleet) -> None:
    """`status` looks at the lock by taking it for a moment."""
    fleet = make_fleet()
    fleet.start()
    holder = fleet.state.holder()
    assert holder is not None and os.path.exists(f"/proc/{holder}")

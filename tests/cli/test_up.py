"""`outgrow up` and what belongs to it, as a person meets it: the journey, then every way to fail."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import (
    PATIENCE_S,
    Foreground,
    Outcome,
    answers,
    fails,
    fleet_processes,
    get,
    post,
    run,
    wait_until,
)
from tests.support.ports import free_port

Up = Callable[..., Foreground]


def test_the_new_application_runs(made: Path, up: Up) -> None:
    fleet = up(made)
    fleet.wait_ready()
    note = post(f"{fleet.url}/notes", {"text": "three little words"})

    def counted() -> bool:
        newest = get(f"{fleet.url}/notes")["notes"][0]
        assert newest["id"] == note["id"], "who has written sees it"
        return newest["words"] == 3

    wait_until(counted, "the queued task")
    assert run("seed", made, "--", "3").code == 0
    wait_until(lambda: len(get(f"{fleet.url}/notes")["notes"]) == 4, "seeded notes")

    status = run("status", made, "--json").document
    assert status["stage"] == "single-server" and status["url"] == fleet.url
    states = {node["name"]: node["state"] for node in status["nodes"]}
    assert states["migrate"] == "done" and states["app"] == "ready" and status["dashboard"]
    assert fleet.url in run("status", made).out

    assert fleet.interrupt() == 0
    assert not answers(f"{fleet.url}/health") and not fleet_processes(made)
    assert fleet.url in fleet.said and "Traceback" not in fleet.said

    again = up(made)
    again.wait_ready()
    assert note["id"] in [each["id"] for each in get(f"{again.url}/notes")["notes"]], (
        "data outlives the fleet"
    )


def test_detached(minimal: Path, detached: Callable[..., Outcome]) -> None:
    port = free_port()
    outcome = detached(minimal, "--port", str(port))
    assert outcome.code == 0 and f"http://127.0.0.1:{port}" in outcome.out, outcome
    assert answers(f"http://127.0.0.1:{port}/health")
    assert run("logs", "app", "-C", minimal).code == 0
    down = run("down", minimal)
    assert down.code == 0 and not answers(f"http://127.0.0.1:{port}/health")
    assert not fleet_processes(minimal)


def test_detached_as_json(minimal: Path, detached: Callable[..., Outcome]) -> None:
    outcome = detached(minimal, "--json", "--port", "0")
    ready = outcome.events[-1]
    assert outcome.code == 0 and ready["event"] == "ready" and answers(f"{ready['url']}/health")
    assert run("down", minimal, "--json").document["stopped"] is True


def test_sigterm_stops_everything(minimal: Path, up: Up) -> None:
    fleet = up(minimal)
    fleet.wait_ready()
    fleet.process.send_signal(signal.SIGTERM)
    fleet.process.send_signal(signal.SIGINT)  # impatience changes nothing
    assert fleet.process.wait(PATIENCE_S) == 0
    assert not answers(f"{fleet.url}/health") and not fleet_processes(minimal)


def test_after_sigkill_the_next_up_clears_away_what_is_left(minimal: Path, up: Up) -> None:
    first = up(minimal)
    first.wait_ready()
    first.process.kill()
    first.process.wait()
    second = up(minimal, port=first.port)
    second.wait_ready()
    assert second.interrupt() == 0
    assert not fleet_processes(minimal)


def test_up_twice(minimal: Path, up: Up) -> None:
    fleet = up(minimal)
    fleet.wait_ready()
    said = fails("up", minimal, code=1)
    assert "already running" in said and "outgrow down" in said
    assert "already running" in fails("up", minimal, "--detach", code=1)
    assert answers(f"{fleet.url}/health")


def test_a_taken_port(minimal: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for mode in ((), ("--detach",)):
            said = fails("up", minimal, "--port", str(port), *mode, code=1)
            assert f"127.0.0.1:{port} is taken" in said and "--port" in said
        error = run("up", minimal, "--port", str(port), "--json").events[-1]["error"]
        assert error["kind"] == "PortTaken"
    assert not fleet_processes(minimal)


def test_an_unwritable_directory(minimal: Path) -> None:
    (minimal / ".outgrow").write_text("a file where the state directory would be")
    for mode in ((), ("--detach",)):
        said = fails("up", minimal, *mode, code=1)
        assert ".outgrow" in said and "→" in said


@pytest.mark.parametrize("mode", [(), ("--detach",)])
def test_a_corrupt_state_file(minimal: Path, mode: tuple[str, ...]) -> None:
    state = minimal / ".outgrow"
    state.mkdir()
    (state / "state.json").write_text('{"half": ')
    said = fails("up", minimal, "--port", str(free_port()), *mode, code=1)
    assert "state.json" in said and "→" in said


def test_down_clears_a_corrupt_state_file(minimal: Path) -> None:
    state = minimal / ".outgrow" / "state.json"
    state.parent.mkdir()
    state.write_text('{"half": ')
    assert run("down", minimal).code == 0
    assert not state.exists() or msgspec.json.decode(state.read_bytes())


@pytest.mark.parametrize("command", ["status", "down"])
def test_nothing_runs(minimal: Path, command: str) -> None:
    outcome = run(command, minimal)
    if command == "down":
        assert outcome.code == 0 and "no fleet" in outcome.out
    else:
        assert outcome.code == 1 and "outgrow up" in outcome.err


def test_an_unknown_stage(minimal: Path) -> None:
    assert "separate-database" in fails("up", minimal, "--stage", "seperate-database", code=2)


def test_a_stage_that_is_not_built_yet(minimal: Path) -> None:
    said = fails("up", minimal, "--stage", "7", code=2)
    assert "stage 7, cdn, is not built yet" in said and "separate-database" in said
    assert not (minimal / ".outgrow").exists(), "nothing was done"


@pytest.mark.parametrize(
    ("source", "expected", "mode"),
    [
        ("import nowhere_to_be_found\n", "install 'nowhere_to_be_found'", ()),
        ("1 / 0\n", "app.py, line 1: ZeroDivisionError", ("--detach",)),
        ("def application(): ...\n", "it has: application", ()),
    ],
)
def test_an_application_that_does_not_import(
    minimal: Path, source: str, expected: str, mode: tuple[str, ...]
) -> None:
    (minimal / "app.py").write_text(source)
    outcome = run("up", minimal, "--port", str(free_port()), *mode)
    assert outcome.code == 1 and expected in outcome.err
    assert outcome.err.count("app: starting") == 1, "no restarts of what cannot start"
    assert not fleet_processes(minimal)


def test_what_dies_is_started_again_and_told(minimal: Path, up: Up) -> None:
    fleet = up(minimal)
    fleet.wait_ready()
    [app] = [node for node in run("status", minimal, "--json").document["nodes"] if node["name"] == "app"]
    os.kill(app["pid"], signal.SIGKILL)
    fleet.wait_said("app restarting: killed by")
    fleet.wait_said("app ready")
    [again] = [node for node in run("status", minimal, "--json").document["nodes"] if node["name"] == "app"]
    assert again["restarts"] == 1 and again["pid"] != app["pid"]
    assert fleet.interrupt() == 0


@pytest.mark.parametrize("mode", [(), ("--detach",)])
def test_interrupted_before_it_serves(minimal: Path, up: Up, mode: tuple[str, ...]) -> None:
    (minimal / "app.py").write_text("import time\ntime.sleep(600)\n")
    fleet = up(minimal, *mode)
    fleet.wait_said("app: starting")
    assert fleet.interrupt() == 130
    assert not fleet_processes(minimal) and "Traceback" not in fleet.said


def test_every_change_as_json(minimal: Path, up: Up) -> None:
    fleet = up(minimal, "--json")
    fleet.wait_said('"event":"ready"')
    assert run("down", minimal).code == 0
    assert fleet.process.wait(PATIENCE_S) == 0, "the normal end"
    events = [msgspec.json.decode(line) for line in fleet.said.splitlines()]
    assert [each["event"] for each in events if each["event"] != "change"] == ["ready", "stopped"]
    changes = [(each["node"], each["state"]) for each in events if each["event"] == "change"]
    assert changes[-1] == ("app", "stopped") and ("app", "ready") in changes


def test_every_mistake_in_the_topology_at_once(minimal: Path) -> None:
    (minimal / "outgrow.toml").write_text(
        'stage = "singel-server"\n[application]\nname = "minimal"\nap = "app:app"\nport = "many"\n'
    )
    said = fails("up", minimal, code=2)
    for expected in ("outgrow.toml", "line 1", "line 4", "line 5", "single-server", "port"):
        assert expected in said
    error = run("up", minimal, "--json").document["error"]
    assert error["kind"] == "TopologyError"
    assert {1, 4, 5} <= {problem["line"] for problem in error["problems"]}


def test_a_topology_that_is_not_toml(minimal: Path) -> None:
    (minimal / "outgrow.toml").write_text("[application\n")
    assert "line 1" in fails("up", minimal, code=2)


def test_no_topology(tmp_path: Path) -> None:
    said = fails("up", tmp_path, code=2)
    assert "outgrow.toml" in said and "outgrow new" in said
    assert "outgrow new" in fails("up", tmp_path / "nowhere", code=2)


def test_the_directory_above_counts(application: Path, tmp_path: Path) -> None:
    assert "no fleet" in fails("status", code=1, cwd=application / "migrations")

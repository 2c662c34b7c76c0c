"""`outgrow drill` for real: on the example at stage 4, small load, verdicts from what was recorded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outgrow import stages
from outgrow.chaos import drills
from outgrow.cluster.state import State
from outgrow.supervisor import orphans
from tests.support.fleets import RunningFleet, wait_until
from tests.support.ports import free_port
from tests.support.source import ROOT

LOAD = ("--rate", "40", "--users", "30")
PATIENCE_S = 220
pytestmark = pytest.mark.timeout(240)
TOPOLOGY = """
[cache]
# In each process, it does not hear of what was written at another server.
engine = "off"

[dashboard]
enabled = false

[deploy]
watch = "4s"

[balancer]
attempt_timeout = "2s"

[balancer.health]
profile = "fast"
"""


def outgrow(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command; nobody can be asked."""
    done = subprocess.run(
        [sys.executable, "-m", "outgrow.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Conduit with three servers and a few articles."""
    directory = tmp_path_factory.mktemp("drills") / "conduit"
    ignored = shutil.ignore_patterns(".outgrow", "__pycache__")
    shutil.copytree(ROOT / "examples" / "conduit", directory, ignore=ignored)
    file = directory / "outgrow.toml"
    text = file.read_text().partition("[cache]")[0].replace("single-server", "load-balancer")
    port = free_port()
    file.write_text(text.replace("port = 8000", f"port = {port}\nservers = 3") + TOPOLOGY)
    made = RunningFleet(directory, "load-balancer")
    made.port = port
    try:
        made.start()
        assert outgrow("seed", directory, "--", "--users", "100", "--articles", "500").returncode == 0
        yield made
    finally:
        made.end()
        assert made.pids() == []


def drilled(fleet: RunningFleet, name: str, report: Path, *more: str) -> tuple[dict[str, Any], int]:
    """The document of a drill, and the exit code."""
    done = outgrow("drill", name, fleet.directory, "--yes", "--json", *LOAD, *more, "--report", report)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    document = msgspec.json.decode(done.stdout)
    assert (done.returncode == 0) == document["held"] == all(each["held"] for each in document["findings"])
    return document, done.returncode


def broken(document: dict[str, Any], *, but: str = "nothing") -> list[dict[str, Any]]:
    """Findings that did not hold; `but` begins the one that a busy machine may break."""
    return [each for each in document["findings"] if not each["held"] and not each["promise"].startswith(but)]


def test_kill_server(fleet: RunningFleet, tmp_path: Path) -> None:
    document, _ = drilled(fleet, "kill-server", tmp_path / "report.html")
    assert broken(document, but="p99") == []
    says = {each["promise"]: each for each in document["findings"]}
    assert says["Every acknowledged write is there."]["figures"]["acknowledged"] > 20
    assert any(promise.startswith("p99 is back") for promise in says)
    assert next(each["kind"] for each in document["happenings"] if each["node"] == "app-3") == "fault"
    assert set(document["servers_answered"]) == {"app-1", "app-2", "app-3"}
    page = (tmp_path / "report.html").read_text()
    assert "SIGKILL of app-3" in page and page.count("<svg") >= 3
    assert not (fleet.state.folder / "drill.json").exists()


def test_pause_server(fleet: RunningFleet, tmp_path: Path) -> None:
    document, code = drilled(fleet, "pause-server", tmp_path / "report.json")
    assert broken(document) == [] and code == 0
    history = msgspec.json.decode((tmp_path / "report.json").read_bytes())["history"]
    assert len(history["attempts"]) == document["requests"] and history["samples"]
    assert fleet.healthy()


def test_deploy(fleet: RunningFleet, tmp_path: Path) -> None:
    before = fleet.status().release
    document, _ = drilled(fleet, "deploy", tmp_path / "report.txt")
    assert broken(document) == []
    told = [each["text"] for each in document["happenings"] if each["node"] == "release"]
    assert told == [f"{before + 1} runs on every server", f"{before} runs on every server"]
    assert audited(fleet) == ("drill: deploy", "held")


@pytest.mark.alone
def test_deploy_slow(fleet: RunningFleet, tmp_path: Path) -> None:
    before = fleet.status().release
    document, _ = drilled(fleet, "deploy-slow", tmp_path / "report.txt", "--rate", "90")
    assert broken(document, but="p99") == []
    assert fleet.status().release == before and not (fleet.state.folder / "drill.json").exists()
    assert audited(fleet)[0] == "drill: deploy-slow"


def audited(fleet: RunningFleet) -> tuple[str, str]:
    """The last line of the audit: what it was, and how it ended."""
    line = msgspec.json.decode((fleet.state.growth / "audit.jsonl").read_bytes().splitlines()[-1])
    return line["move"], line["outcome"]


def test_what_is_refused(fleet: RunningFleet, tmp_path: Path) -> None:
    done = outgrow("drill", "kill-server", fleet.directory)
    assert done.returncode == 2 and "--yes" in done.stderr and "hurts the fleet" in done.stderr
    done = outgrow("drill", "kill-servers", fleet.directory, "--yes")
    assert done.returncode == 2 and "kill-server" in done.stderr
    done = outgrow("drill", "kill-server", fleet.directory, "--yes", "--report", tmp_path / "report.pdf")
    assert done.returncode == 2 and ".html" in done.stderr
    done = outgrow("drill", "kill-server", ROOT / "examples" / "tutorial_fastapi", "--yes")
    assert done.returncode == 2 and "no fleet is running" in done.stderr
    unmarked = tmp_path / "load.toml"
    unmarked.write_text('rate = 1\n[request.home]\nweight = 1\npath = "/"\n')
    done = outgrow("drill", "kill-server", fleet.directory, "--yes", "--scenario", unmarked)
    assert done.returncode == 2 and "[marks]" in done.stderr


def test_the_list_says_what_each_proves() -> None:
    document = msgspec.json.decode(outgrow("drill", "list", "--json").stdout)
    listed = {each["name"]: each for each in document["drills"]}
    assert list(listed) == list(drills.TABLE)
    named = {name for stage in stages.LADDER for promise in stage.promises for name in promise.drills}
    assert named <= set(listed), "a promise names a drill that does not exist"
    assert {name for name, each in listed.items() if each["proves"]} == named
    text = outgrow("drill", "list").stdout
    assert all(each["shows"] in text and each["needs"] in text for each in listed.values())


def test_a_drill_that_is_killed_is_undone_by_down(fleet: RunningFleet, tmp_path: Path) -> None:
    note = State(fleet.directory).folder / "drill.json"
    arguments = ("drill", "pause-server", str(fleet.directory), "--yes", *LOAD)
    with (tmp_path / "said").open("wb") as said:
        command = [sys.executable, "-m", "outgrow.cli", *arguments]
        drill = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    wait_until(note.exists, "the note")
    pid = fleet.node("app-3").pid
    assert pid is not None
    wait_until(lambda: stopped(pid), "the server to be stopped")
    os.killpg(drill.pid, signal.SIGKILL)
    drill.wait()
    assert stopped(pid) and note.exists()
    assert outgrow("down", fleet.directory).returncode == 0
    assert orphans.start_time(pid) is None and not note.exists()


def stopped(pid: int) -> bool:
    """Whether it stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T"

"""`outgrow logs`: reading what the nodes have written, also when nothing runs any more."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from outgrow.supervisor.logs import Logs
from tests.cli.conftest import COMMAND, environment, fails, run, wait_until


def line(moment: str, message: str, **more: object) -> str:
    fields = {"ts": f"2026-01-02T03:04:{moment}Z", "level": "info", "message": message, **more}
    return msgspec.json.encode(fields).decode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    logs = tmp_path / ".outgrow" / "logs"
    logs.mkdir(parents=True)
    (logs / "app.log").write_text(f"{line('01.000', 'one')}\n{line('03.000', 'three', path='/x')}\n")
    (logs / "db.log").write_text(f"{line('02.000', 'two')}\nplain text that belongs to two\n")
    return tmp_path


def test_all_nodes_in_the_order_of_time(directory: Path) -> None:
    said = run("logs", cwd=directory).out.splitlines()
    assert [each.split(" ")[0] for each in said] == ["app", "db", "db", "app"]
    assert said[0].endswith("INFO  one") and said[2].endswith("plain text that belongs to two")
    assert "path=/x" in said[3]


def test_one_node_has_no_prefix(directory: Path) -> None:
    said = run("logs", "db", "-C", directory).out.splitlines()
    assert said[1] == "plain text that belongs to two"


def test_the_last_lines(directory: Path) -> None:
    assert len(run("logs", "-n", "1", cwd=directory).out.splitlines()) == 1
    assert run("logs", "-n", "0", cwd=directory).out == ""


def test_as_json(directory: Path) -> None:
    lines = [msgspec.json.decode(each) for each in run("logs", "--json", cwd=directory).out.splitlines()]
    assert [each["message"] for each in lines] == ["one", "two", "plain text that belongs to two", "three"]
    assert [each["node"] for each in lines] == ["app", "db", "db", "app"] and lines[3]["path"] == "/x"


def test_raw(directory: Path) -> None:
    assert run("logs", "app", "--raw", cwd=directory).out == (directory / ".outgrow/logs/app.log").read_text()


def test_reads_on_into_the_file_before_the_rotation(directory: Path) -> None:
    (directory / ".outgrow/logs/app.log.1").write_text(f"{line('00.000', 'zero')}\n")
    assert run("logs", "app", cwd=directory).out.splitlines()[0].endswith("zero")


def test_an_unknown_node_gets_the_nearest(directory: Path) -> None:
    said = fails("logs", "ap", code=2, cwd=directory)
    assert "did you mean 'app'" in said and "app, db" in said


def test_no_logs_yet(minimal: Path) -> None:
    assert "outgrow up" in fails("logs", code=2, cwd=minimal)


def test_follow_goes_on_over_a_rotation(directory: Path) -> None:
    log = directory / ".outgrow/logs/app.log"
    follower = subprocess.Popen(
        [*COMMAND, "logs", "app", "-f", "-n", "1", "--raw"],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert follower.stdout is not None and follower.stderr is not None
        assert b"three" in follower.stdout.readline()
        with log.open("a") as file:
            file.write("half a ")
            file.flush()
            file.write("line\n")
        assert follower.stdout.readline() == b"half a line\n"
        with log.open("a") as file:
            file.write("just before it\n")
            file.flush()
            Logs(log.parent, size_max=1).rotate()
            file.write("after it\n")
        assert follower.stdout.readline() == b"just before it\n"
        assert follower.stdout.readline() == b"after it\n"
        follower.send_signal(2)
        wait_until(lambda: follower.poll() is not None, "the end after Ctrl-C")
        assert follower.returncode == 130 and not follower.stderr.read().strip()
    finally:
        follower.kill()
        follower.communicate()

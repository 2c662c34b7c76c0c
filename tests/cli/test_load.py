"""`outgrow load`, option by option, against a server of its own and against a fleet."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import (
    COMMAND,
    Foreground,
    Outcome,
    answers,
    environment,
    fails,
    run,
    wait_until,
)
from tests.support.ports import free_port
from tests.support.source import ROOT

QUICK = ("--rate", "100", "--duration", "0.5", "--warmup", "0")
SCENARIO = """\
name = "small"
arrivals = "constant"
users = 10

[[phase]]
rate = 50
duration = "200ms"

[[phase]]
rate = 50
to = 150
duration = "200ms"

[[setup]]
name = "sign up"
each = "user"
method = "POST"
path = "/api/users"
json.user.username = "u-{run}-{user}"
capture = { token = "user.token" }

[user]
headers = { authorization = "Token {token}" }

[draw]
slug = { between = [0, 299] }

[request.favorite]
method = "POST"
path = "/api/articles/article-{slug}/favorite"
writes = [{ fact = "favorited {slug}", set = true }]

[request.article]
path = "/api/articles/article-{slug}"
reads = [{ fact = "favorited {slug}", at = "article.favorited" }]

[journey.liking]
weight = 1
steps = ["favorite", "article"]
"""
BROKEN = 'rate = 1\n[request.x]\nweight = 1\npath = "/api/none"\n'


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server whose reads are 200 ms behind, unless a bookmark asks for more."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.load.realworld", str(port), "0.2"], cwd=ROOT, env=environment()
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/api/tags"), "the server answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(SCENARIO)
    return file


@pytest.fixture
def load(url: str, scenario: Path) -> Callable[..., Outcome]:
    return lambda *more: run("load", "--url", url, "--scenario", scenario, "--warmup", "0", *more)


def document(outcome: Outcome) -> Any:
    assert outcome.err == ""
    return outcome.document


def test_the_scenario_file_decides(load: Callable[..., Outcome]) -> None:
    report = document(load("--json"))
    assert report["scenario"] == "small"
    assert (report["intended"], report["answered"], report["users"]) == (30, 30, 10)
    assert [phase["rate"] for phase in report["phases"]] == [50, 50]
    assert report["checked"] >= 10
    assert report["violations"] == 0


def test_text_for_people_and_progress_beside_it(load: Callable[..., Outcome]) -> None:
    outcome = load()
    assert outcome.code == 0
    assert outcome.out.startswith("small at http://127.0.0.1:")
    assert "own lateness" in outcome.out
    assert "set-up: sign up\n" in outcome.err
    assert "\x1b[" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (("--rate", "100"), "intended", 40),
        (("--duration", "600ms"), "intended", 30),
        (("--rate", "20", "--duration", "0.5"), "intended", 10),
        (("--warmup", "0.5"), "warmup", 0.5),
        (("--users", "3"), "users", 3),
        (("--connections", "2"), "connections", 2),
        (("--bookmark", "keep"), "bookmark", "keep"),
        (("--seed", "77"), "seed", 77),
    ],
)
def test_options_replace_what_the_file_says(
    load: Callable[..., Outcome], options: tuple[str, ...], key: str, value: object
) -> None:
    assert document(load("--json", *options))[key] == value


def test_the_warm_up_is_not_measured(load: Callable[..., Outcome]) -> None:
    report = document(load("--json", "--rate", "50", "--duration", "0.2", "--warmup", "1"))
    assert report["intended"] == 10
    assert [row["warmup"] for row in report["series"]][:2] == [True, False]


def test_violations_fail_the_run_and_are_shown(load: Callable[..., Outcome]) -> None:
    outcome = load("--bookmark", "drop", *QUICK)
    assert outcome.code == 1
    assert "failed: " in outcome.out
    assert "favorited" in outcome.out
    assert "True expected, False found" in outcome.out


def test_errors_fail_the_run_only_beyond_the_limit(url: str, tmp_path: Path) -> None:
    file = tmp_path / "errors.toml"
    file.write_text(BROKEN.replace("x]", "bad]") + '[request.good]\nweight = 1\npath = "/api/tags"\n')

    def code(*more: str) -> int:
        return run("load", "--url", url, "--scenario", file, *QUICK, *more).code

    assert code() == 0
    assert code("--errors-max", "1") == 1
    assert code("--errors-max", "1000") == 0
    assert code("--errors-max", "5%") == 1
    assert code("--errors-max", "95%") == 0


def test_a_run_without_any_right_answer_fails(url: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(BROKEN)
    outcome = run("load", "--url", url, "--scenario", file, *QUICK)
    assert outcome.code == 1
    assert "no request was answered as it should be" in outcome.out
    assert "status 404" in outcome.out


@pytest.mark.parametrize(
    ("name", "begins"), [("r.html", "<!doctype html>"), ("r.json", "{"), ("r.txt", "small at")]
)
def test_the_report_in_a_file(load: Callable[..., Outcome], tmp_path: Path, name: str, begins: str) -> None:
    outcome = load("--report", tmp_path / name)
    assert (tmp_path / name).read_text().startswith(begins)
    assert f"report written to {tmp_path / name}" in outcome.err


def test_ctrl_c_ends_it_early_with_a_report(url: str, scenario: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    process = subprocess.Popen(
        [*COMMAND, "load", "--url", url, "--scenario", str(scenario), "--rate", "50", "--duration", "10m",
         "--warmup", "0", "--report", str(file)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("loading"):
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "ended early" in out
    assert '"interrupted":true' in file.read_text()


def test_on_a_terminal_one_line_changes(url: str, scenario: Path) -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "load", "--url", url, "--scenario", str(scenario), "--rate", "50", "--duration", "1.2",
         "--warmup", "0"],
        env=environment(TERM="xterm"), stdin=end, stdout=end, stderr=end,
    )  # fmt: skip
    os.close(end)
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(terminal)
    assert process.wait(20) == 0
    assert b"\r\x1b[2Kloading 1 of 1 s, " in shown
    assert b"own lateness" in shown


def test_it_takes_the_fleet_and_the_file_of_the_directory(
    application: Path, up: Callable[..., Foreground]
) -> None:
    up(application).wait_ready()
    assert "there is no load.toml" in fails("load", application, code=2)
    (application / "load.toml").write_text('[request.x]\nweight = 1\npath = "/health"\nsigned_in = 0\n')
    assert "says a rate" in fails("load", application, code=2)
    report = document(run("load", application, *QUICK, "--json"))
    assert report["answered"] == report["intended"] > 20
    assert document(run("load", *QUICK, "--json", cwd=application))["answered"] > 20


def test_without_a_fleet_it_says_so(application: Path) -> None:
    (application / "load.toml").write_text(BROKEN)
    assert "no fleet is running" in fails("load", application, code=1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--url", "http://192.0.2.1"), "is not on this machine"),
        (("--url", "https://127.0.0.1"), "is no http:// URL"),
        (("--rate", "0"), "0"),
        (("--duration", "soon"), "is no duration"),
        (("--errors-max", "many"), "is neither a count"),
        (("--report", "report.pdf"), "has none of the forms"),
        (("--report", "/nowhere/at/all.html"), "is not a directory"),
        (("--scenario", "none.toml"), "does not exist"),
    ],
)
def test_misuse(scenario: Path, arguments: tuple[str, ...], told: str) -> None:
    given = ("--url", "http://127.0.0.1:1", "--scenario", str(scenario))
    assert told in fails("load", *given, *arguments, code=2)


def test_another_machine_can_be_allowed(scenario: Path) -> None:
    """Nobody listens at this address of the network for documentation; that it is tried is what matters."""
    arguments = ("load", "--url", "http://0.0.0.0:1", "--scenario", scenario)
    assert "is not on this machine" in fails(*arguments, code=2)
    assert "the set-up request" in fails(*arguments, "--allow-remote", code=1)


def test_mistakes_in_the_scenario_for_programs(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("rte = 1\n")
    outcome = run("load", "--url", "http://127.0.0.1:1", "--scenario", file, "--json")
    assert outcome.code == 2
    assert [each["path"] for each in outcome.document["error"]["problems"]] == ["rte"]

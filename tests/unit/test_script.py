"""Scripts: one function of the application, in a process of its own, with the tiers open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outgrow import endpoints

APP = """\
import sys
from outgrow import Outgrow
from outgrow.errors import FleetNotRunning, Misuse
import sqlalchemy as sa
og = Outgrow()
NUMBER = sa.select(sa.literal(7))
async def main(given, arguments):
    assert given is og
    async with og.db.read() as tx:
        print(await tx.value(NUMBER), arguments)
def plain(given, arguments):
    print("plain", arguments)
async def misused(given, arguments):
    raise Misuse("a number, please", hint="say 10")
async def failed(given, arguments):
    raise FleetNotRunning("/there")
async def broken(given, arguments):
    raise KeyError("users")
async def stopped(given, arguments):
    sys.exit(5)
"""
OTHER = "from app import main as elsewhere\nasync def fresh(og, arguments): print(type(og).__name__)\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "other.py").write_text(OTHER)
    node = endpoints.Node("db", f"sqlite:///{tmp_path}/test.db")
    database = endpoints.Database("sqlite", (endpoints.Shard("main", (node,)),))
    secrets = tmp_path / "secrets.json"
    endpoints.write(secrets, endpoints.Secrets(application="ab" * 32))
    endpoints.write(
        tmp_path / "endpoints.json",
        endpoints.Endpoints(
            application="t", stage="single-server", database=database, secrets_file=str(secrets)
        ),
    )
    migrated = subprocess.run(
        [sys.executable, "-m", "outgrow.runtime.database.migrate"],
        env=environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert migrated.returncode == 0
    return tmp_path


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "OUTGROW_ENDPOINTS": str(directory / "endpoints.json")}


def run(directory: Path, *arguments: str) -> tuple[int, str, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-m", "outgrow.runtime.script", *arguments],
        cwd=directory,
        env=environment(directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, [msgspec.json.decode(line) for line in done.stderr.splitlines()]


def test_it_runs_with_the_modules_own_outgrow_open(directory: Path) -> None:
    assert run(directory, "app:main", "10", "--fast") == (0, "7 ['10', '--fast']\n", [])
    assert run(directory, "app:plain") == (0, "plain []\n", [])
    assert run(directory, "other:elsewhere") == (0, "7 []\n", [])
    assert run(directory, "other:fresh") == (0, "Outgrow\n", [])


@pytest.mark.parametrize(
    ("function", "code", "told"),
    [
        ("app:misused", 2, {"fatal": "a number, please", "hint": "say 10"}),
        ("app:failed", 1, {"fatal": "no fleet is running in /there", "hint": "start it with `outgrow up`"}),
        ("app:missing", 78, {"fatal": "application.seed is 'app:missing', and app has no 'missing'"}),
        ("app:broken", 1, {"fatal": "app.py, line 18: KeyError: 'users'"}),
    ],
)
def test_a_failure_is_told_in_one_line(
    directory: Path, function: str, code: int, told: dict[str, str]
) -> None:
    ended, out, [line] = run(directory, function)
    assert (ended, out) == (code, "")
    assert told.items() <= line.items()


def test_what_it_exits_with_is_its_own_affair(directory: Path) -> None:
    assert run(directory, "app:stopped")[0] == 5


def test_a_missing_argument_is_misuse(directory: Path) -> None:
    code, _, [line] = run(directory)
    assert code == 2
    assert "missing" in line["fatal"]

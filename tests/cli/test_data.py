"""`outgrow seed` and `outgrow migrate`: on the running fleet, and without one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Foreground, fails, get, run, wait_until

Up = Callable[..., Foreground]
SECOND = '''"""who wrote it"""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("notes", sa.Column("author", sa.Text))
'''
BROKEN = SECOND.replace('"notes"', '"nowhere"')


def notes(directory: Path) -> int:
    """How many there are in the file, whoever has it open."""
    connection = sqlite3.connect(directory / ".outgrow" / "data" / "hello.db")
    try:
        return int(connection.execute("SELECT count(*) FROM notes").fetchone()[0])
    finally:
        connection.close()


def test_without_a_fleet(application: Path) -> None:
    outcome = run("seed", "--json", "--", "2", "--json", cwd=application)
    assert outcome.code == 0 and notes(application) == 2, "what is new was migrated first"
    assert outcome.document["arguments"] == ["2", "--json"] and outcome.document["seed"] == "app:seed"
    assert "nothing to do" in run("migrate", application).out


def test_on_the_running_fleet(application: Path, up: Up) -> None:
    fleet = up(application)
    fleet.wait_ready()
    assert run("seed", application, "--", "2").code == 0
    wait_until(lambda: len(get(f"{fleet.url}/notes")["notes"]) == 2, "the seeded notes")
    (application / "migrations" / "versions" / "0002_author.py").write_text(SECOND)
    applied = run("migrate", application, "--json").document["applied"]
    assert applied == [{"revision": "0002", "title": "who wrote it"}]
    assert fleet.interrupt() == 0


def test_a_broken_migration_is_told_and_leaves_nothing(application: Path) -> None:
    (application / "migrations" / "versions" / "0002_broken.py").write_text(BROKEN)
    error = run("migrate", application, "--json").document["error"]
    assert error["exit_code"] == 1 and "no such table: nowhere" in error["message"]
    (application / "migrations" / "versions" / "0002_broken.py").unlink()
    assert "1 applied" in run("migrate", application).out, "the one before it was undone too"


@pytest.mark.parametrize(
    ("source", "code", "expected"),
    [
        ("async def seed(og, arguments): raise SystemExit(7)", 1, "app:seed ended with exit code 7"),
        ("from outgrow.errors import Misuse\ndef seed(og, arguments): raise Misuse('ten?')", 2, "ten?"),
    ],
)
def test_a_seed_that_fails(minimal: Path, source: str, code: int, expected: str) -> None:
    with (minimal / "outgrow.toml").open("a") as file:
        file.write('seed = "app:seed"\n')
    (minimal / "app.py").write_text(f"{source}\nasync def app(scope, receive, send): ...\n")
    assert expected in fails("seed", minimal, code=code)


def test_what_it_prints_passes_through(minimal: Path) -> None:
    with (minimal / "outgrow.toml").open("a") as file:
        file.write('seed = "app:seed"\n[application.environment]\nCOLOUR = "blue"\n')
    source = "import os\ndef seed(og, arguments): print('seen', os.environ['COLOUR'])\nasync def app(*a): ..."
    (minimal / "app.py").write_text(source)
    outcome = run("seed", minimal, "--json")
    assert "seen blue" in outcome.err and outcome.document["arguments"] == [], "beside the JSON"


def test_an_application_without_a_seed(minimal: Path) -> None:
    assert 'seed = "app:seed"' in fails("seed", minimal, code=2)


@pytest.mark.parametrize("command", ["seed", "migrate"])
def test_the_fleets_own_postgresql_must_run(application: Path, command: str) -> None:
    toml = application / "outgrow.toml"
    toml.write_text(toml.read_text().replace('stage = "single-server"', 'stage = "separate-database"'))
    assert "outgrow up" in fails(command, application, code=1)


def test_a_database_that_does_not_answer(application: Path) -> None:
    with (application / "outgrow.toml").open("a") as file:
        file.write('\n[database]\nurl = "postgresql://me:secret@127.0.0.1:1/hello"\n')
    said = fails("migrate", application, code=1)
    assert "migrated" in said and "secret" not in said

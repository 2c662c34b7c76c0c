"""PostgreSQL as the fleet runs it: who may do what, what is kept, what is secret."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from outgrow import cluster, endpoints
from outgrow.engines.postgres import postgres
from outgrow.errors import EngineMissing
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.lacking import lacking

STAGE = "separate-database"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """One fleet at stage 2 for the tests that only look."""
    made = RunningFleet(make_application(tmp_path_factory.mktemp("fleet") / "hello"), STAGE)
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def server(fleet: RunningFleet) -> tuple[str, int]:
    """Where it listens."""
    address = fleet.node("postgres").address
    assert address is not None
    host, _, port = address.rpartition(":")
    return host, int(port)


def password(fleet: RunningFleet, role: str) -> str:
    """As the fleet keeps it."""
    return endpoints.read_secrets(fleet.state.placement().operator_secrets).passwords[role]


async def connect(fleet: RunningFleet, user: str, secret: str | None, database: str = "hello") -> Any:
    """A connection without ssl, as the packaged build has none."""
    host, port = server(fleet)
    return await asyncpg.connect(host=host, port=port, user=user, password=secret, database=database)


def test_the_same_application_on_postgresql(fleet: RunningFleet) -> None:
    note = fleet.write("on a server of its own")
    assert fleet.read(note) == "on a server of its own"
    names = [node.name for node in fleet.status().nodes]
    assert names == ["postgres-init", "postgres", "postgres-provision", "migrate", "app", "dashboard"]


@pytest.mark.parametrize(
    "forbidden",
    [
        "CREATE TABLE mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "DROP TABLE notes",
        "ALTER TABLE notes ADD COLUMN y int",
        "TRUNCATE notes",
        "CREATE ROLE mine",
        "ALTER ROLE hello SUPERUSER",
        "CREATE DATABASE mine",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COPY notes TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE hello_owner",
    ],
)
async def test_the_applications_role_may_not(fleet: RunningFleet, forbidden: str) -> None:
    connection = await connect(fleet, "hello", password(fleet, "*"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(forbidden)
    finally:
        await connection.close()


async def test_every_connection_needs_the_right_password(fleet: RunningFleet) -> None:
    for user in ("hello", "hello_owner", "outgrow_admin"):
        for wrong in (None, "", "wrong"):
            with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
                await connect(fleet, user, wrong, "postgres")
    connection = await connect(fleet, "outgrow_admin", password(fleet, "admin"), "postgres")
    try:
        stored = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = 'hello'")
        assert stored.startswith("SCRAM-SHA-256$")
        rules = await connection.fetch("SELECT type, auth_method FROM pg_hba_file_rules")
        assert {rule["auth_method"] for rule in rules} == {"scram-sha-256"}
        assert await connection.fetchval("SHOW unix_socket_directories") == ""
    finally:
        await connection.close()


async def test_another_applications_role_cannot_enter(fleet: RunningFleet) -> None:
    admin = await connect(fleet, "outgrow_admin", password(fleet, "admin"), "postgres")
    try:
        await admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connect(fleet, "stranger", "stranger")
    finally:
        await admin.execute("DROP ROLE stranger")
        await admin.close()


def test_no_password_is_to_be_seen(fleet: RunningFleet) -> None:
    passwords = [password(fleet, role) for role in ("admin", "migrations", "*")]
    shown = [path.read_text(errors="replace") for path in fleet.state.logs.iterdir()]
    shown.append(fleet.state.placement().endpoints.read_text())
    for pid in fleet.pids() + [node.pid for node in fleet.status().nodes if node.pid]:
        shown.append(Path(f"/proc/{pid}/cmdline").read_text())
        shown.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
    for secret in passwords:
        assert not any(secret in text for text in shown)
    application = json.loads(fleet.state.placement().secrets.read_text())
    assert list(application["passwords"]) == ["*"], "the application knows its own password alone"


def test_postgresql_runs_without_root(fleet: RunningFleet) -> None:
    pid = fleet.node("postgres").pid
    assert pid is not None
    mapped = Path(f"/proc/{pid}/uid_map").read_text().split()
    status = Path(f"/proc/{pid}/status").read_text()
    real = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1]
    # As root's child it lives in a user namespace, where it is nobody; else it has our own uid.
    assert mapped[0] == "65534" if real == "0" else real != "0"


def test_killed_and_back_with_its_data(tmp_path: Path) -> None:
    fleet = RunningFleet(make_application(tmp_path / "hello"), STAGE)
    try:
        fleet.start()
        note = fleet.write("before")
        fleet.kill("postgres")
        wait_until(lambda: fleet.node("postgres").restarts == 1, "the death to be seen")
        wait_until(lambda: fleet.node("postgres").state == "ready" and fleet.healthy(), "the server again")
        assert fleet.read(note) == "before"
        assert fleet.read(fleet.write("after")) == "after"
        fleet.end()
        fleet.start()
        assert fleet.read(note) == "before", "the data directory is kept"
        fleet.kill_supervisor()
        fleet.start()
        assert fleet.read(note) == "before"
    finally:
        fleet.end()
        assert fleet.pids() == []


def test_initdb_interrupted(tmp_path: Path) -> None:
    """Half a data directory from a crash is thrown away and made again."""
    fleet = RunningFleet(make_application(tmp_path / "hello"), STAGE)
    half = fleet.state.placement().data / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    try:
        fleet.start()
        assert fleet.read(fleet.write("whole")) == "whole" and not half.exists()
    finally:
        fleet.end()


def test_data_of_another_version_is_not_touched(tmp_path: Path) -> None:
    fleet = RunningFleet(make_application(tmp_path / "hello"), STAGE)
    data = fleet.state.placement().data / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(Exception, match="made by PostgreSQL 14"):
        fleet.start()
    assert (data / "PG_VERSION").read_text() == "14\n"
    assert fleet.pids() == []


def test_programs_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match=r"database\.programs"):
        postgres.find(str(tmp_path))
    for program in postgres.NEEDED:
        (tmp_path / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 12.3'\n")
        (tmp_path / program).chmod(0o755)
    with pytest.raises(EngineMissing, match=r"PostgreSQL 16 .*12\.3"):
        postgres.find(str(tmp_path))


def test_an_installation_of_ones_own(tmp_path: Path) -> None:
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    file.write_text(f'{file.read_text()}\n[database]\nprograms = "{postgres.programs(None)}"\n')
    fleet = RunningFleet(directory, STAGE)
    try:
        fleet.start()
        assert fleet.read(fleet.write("own")) == "own"
    finally:
        fleet.end()


DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def test_connections_are_encrypted_where_the_build_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's build has TLS, the packaged one has not."""
    if not DEBIAN:
        lacking("it needs Debian's package postgresql")
    monkeypatch.setattr(postgres, "VERSION_MIN", 15)  # Debian 12 has 15: old for use, enough for this
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    file.write_text(f'{file.read_text()}\n[database]\nprograms = "{DEBIAN[-1].parent}"\n')
    fleet = RunningFleet(directory, STAGE)

    async def look() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.ensure_future(
            cluster.Fleet(fleet.topology, directory).run(
                tell=fleet.changes.append, ready=lambda status: ready.set(), stop=stop
            )
        )
        try:
            waiting = asyncio.ensure_future(ready.wait())
            await asyncio.wait((running, waiting), timeout=60, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                waiting.cancel()
                await running
            url = endpoints.read(fleet.state.placement().endpoints).database.shards[0].nodes[0].url
            assert "sslmode=verify-full" in url
            connection = await asyncpg.connect(url, password=password(fleet, "*"))
            row = await connection.fetchrow(
                "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            )
            assert row["ssl"] and row["version"].startswith("TLS")
            await connection.close()
            with pytest.raises((asyncpg.PostgresError, OSError), match=r"encryption|hba"):
                plain = url.partition("?")[0]
                await asyncpg.connect(plain, ssl="disable", password=password(fleet, "*"))
            assert (
                await asyncio.to_thread(fleet.read, await asyncio.to_thread(fleet.write, "secret"))
                == "secret"
            )
        finally:
            stop.set()
            await running

    asyncio.run(look())
    key = fleet.state.placement().data / "postgres-tls" / "server.key"
    assert key.stat().st_mode & 0o077 == 0
    assert shutil.which("openssl")

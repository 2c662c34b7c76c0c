"""PgBouncer as the fleet runs it: how many connections PostgreSQL gets, what is kept, what is secret."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from outgrow import endpoints
from outgrow.cluster.plan import runs_pgbouncer
from outgrow.engines.pgbouncer import pgbouncer
from outgrow.engines.postgres.postgres import CONNECTIONS
from outgrow.errors import EngineMissing
from outgrow.topology import parse
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.growing import Command, Traffic
from tests.support.open_load import OpenLoad
from tests.support.pgbouncer import program

ROOT = Path(__file__).resolve().parents[2]
HELD = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"


def made(directory: Path, stage: str, settings: str) -> RunningFleet:
    """A fleet of this application; it is not started."""
    program()
    with (directory / "outgrow.toml").open("a") as file:
        file.write(f"\n{settings}\n[dashboard]\nenabled = false\n")
    return RunningFleet(directory, stage)


def hello(directory: Path, settings: str = '[database]\npooler = "pgbouncer"') -> RunningFleet:
    return made(make_application(directory), "separate-database", settings)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """The example on 4 servers with 2 workers, each with a pool of 20: 160 connections."""
    directory = tmp_path_factory.mktemp("fleet") / "conduit"
    shutil.copytree(
        ROOT / "examples" / "conduit", directory, ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    file = directory / "outgrow.toml"
    text = file.read_text().replace('stage = "single-server"', 'stage = "load-balancer"')
    text = text.replace("port = 8000", "port = 8000\nservers = 4\nworkers = 2")
    # Without a cache every read goes through the pooler; and those of different servers would not agree.
    file.write_text(text.replace("entries = 50000", 'engine = "off"'))
    running = made(directory, "load-balancer", "[database]\npool = 20")
    try:
        running.start()
        yield running
    finally:
        running.end()
        assert running.pids() == []


def direct(fleet: RunningFleet) -> dict[str, Any]:
    """How the fleet itself reaches PostgreSQL."""
    address = fleet.node("postgres").address
    assert address is not None
    host, _, port = address.rpartition(":")
    secrets = endpoints.read_secrets(fleet.state.placement().operator_secrets).passwords
    name = fleet.topology.application.name
    return {
        "host": host,
        "port": int(port),
        "user": "outgrow_admin",
        "password": secrets["admin"],
        "database": name,
    }


class Held:
    """The most connections that the application's role had at once."""

    def __init__(self, fleet: RunningFleet) -> None:
        self.most = 0
        self._fleet = fleet
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Held:
        connection = await asyncpg.connect(**direct(self._fleet))
        self._task = asyncio.create_task(self._look(connection))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self, connection: Any) -> None:
        try:
            while True:
                count = await connection.fetchval(HELD, self._fleet.topology.application.name)
                self.most = max(self.most, count)
                await asyncio.sleep(0.02)
        finally:
            connection.terminate()


def test_it_comes_when_connections_multiply() -> None:
    def shared(settings: str, database: str = "") -> bool:
        stage = 'stage = "load-balancer"\n'
        return runs_pgbouncer(parse(f"{stage}[application]\n{settings}\n[database]\n{database}\n"))

    assert not shared("servers = 5\nworkers = 2")
    assert shared("servers = 5\nworkers = 2", "pool = 11")
    assert not shared("servers = 5\nworkers = 2", 'pool = 11\npooler = "off"')
    assert shared("servers = 1", 'pooler = "pgbouncer"')
    assert not shared("servers = 100", 'url = "postgresql://app@db.internal/app"')


async def test_the_example_under_load(fleet: RunningFleet) -> None:
    node = endpoints.read(fleet.state.placement().endpoints).database.shards[0].nodes[0]
    assert node.pooled and f":{pgbouncer.PORT}/" in node.url
    await asyncio.to_thread(Command(fleet, "seed", "--", "--users", "200", "--articles", "1200").wait_done)
    async with Held(fleet) as held:
        arguments = ("--rate", "60", "--duration", "8s", "--warmup", "2s", "--users", "40", "--json")
        command = Command(fleet, "load", "--url", fleet.url, *arguments)
        said = await asyncio.to_thread(command.wait_done)
    report = msgspec.json.decode(said.encode())
    assert (report["failed"], report["violations"], report["answered"] > 400) == (0, 0, True), said
    assert 0 < held.most <= CONNECTIONS


async def test_more_at_once_than_there_are_connections_wait(fleet: RunningFleet) -> None:
    node = endpoints.read(fleet.state.placement().endpoints).database.shards[0].nodes[0]
    secret = endpoints.read_secrets(fleet.state.placement().secrets).passwords["*"]

    async def one() -> None:
        connection = await asyncpg.connect(node.url, password=secret, statement_cache_size=0, timeout=30)
        try:
            await connection.execute("SELECT pg_sleep(0.5)")
        finally:
            await connection.close()

    async with Held(fleet) as held:
        for _ in range(2):
            await asyncio.gather(*(one() for _ in range(160)))
    assert held.most == CONNECTIONS
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(node.url, password="wrong", timeout=5)


def test_no_password_is_to_be_seen_and_no_root(fleet: RunningFleet) -> None:
    place = fleet.state.placement()
    passwords = endpoints.read_secrets(place.operator_secrets).passwords
    shown = [path.read_text(errors="replace") for path in fleet.state.logs.iterdir()]
    files = [path for path in place.data.iterdir() if path.is_file()]
    shown += [path.read_text(errors="replace") for path in files]
    for pid in fleet.pids():
        shown.append(Path(f"/proc/{pid}/cmdline").read_text())
        shown.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
    assert not any(passwords[role] in text for role in ("*", "migrations", "admin") for text in shown)
    assert all(path.stat().st_mode & 0o077 == 0 for path in files if path.name.startswith("pgbouncer"))
    pooler = fleet.node(pgbouncer.NAME).pid
    assert pooler in fleet.pids()
    mapped = Path(f"/proc/{pooler}/uid_map").read_text().split()
    assert mapped[0] == "65534" if os.geteuid() == 0 else os.geteuid() != 0


def test_killed_it_comes_back_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    fleet = hello(tmp_path / "hello")
    try:
        fleet.start()
        names = [node.name for node in fleet.status().nodes if node.kind == "service"]
        assert names == ["postgres", "pgbouncer", "app"]
        with Traffic(fleet) as traffic:
            traffic.lenient = True
            traffic.wait_for_more()
            for killed, restarts in ((pgbouncer.NAME, 1), (pgbouncer.NAME, 2), ("postgres", 1)):
                fleet.kill(killed)
                wait_until(lambda k=killed, r=restarts: fleet.node(k).restarts == r, "its restart")  # type: ignore[misc]
                traffic.wait_for_more()
        assert traffic.wrong == []
        traffic.require_all_there()
    finally:
        fleet.end()
        assert fleet.pids() == []


def test_back_to_sqlite_from_behind_it(tmp_path: Path) -> None:
    """The move copies from PostgreSQL itself, and the pooler goes with it."""
    fleet = hello(tmp_path / "hello")
    file = fleet.directory / "outgrow.toml"
    file.write_text(file.read_text().replace('stage = "single-server"', 'stage = "separate-database"'))
    try:
        fleet.start()
        note = fleet.write("through the pooler")
        Command(fleet, "shrink", "single-server").wait_done()
        assert fleet.read(note) == "through the pooler"
        assert [node.name for node in fleet.status().nodes if node.kind == "service"] == ["app"]
        Command(fleet, "grow", "separate-database").wait_done()
        assert fleet.read(note) == "through the pooler"
        fleet.end()
        fleet.stage = "separate-database"
        fleet.start()
        assert fleet.node(pgbouncer.NAME).state == "ready"
        assert httpx.get(f"{fleet.url}/health/deep").status_code == 200
        assert fleet.read(note) == "through the pooler"
    finally:
        fleet.end()
        assert fleet.pids() == []


async def test_it_comes_live_with_the_servers_that_need_it(tmp_path: Path) -> None:
    """2 servers have 80 connections of their own, 4 would have 160: they share, and no request notices."""
    directory = make_application(tmp_path / "hello")
    fleet = made(directory, "load-balancer", "[application]\nservers = 2\n[database]\npool = 40")
    file = directory / "outgrow.toml"
    named = (
        file.read_text().replace("[application]\nservers = 2\n", "").replace("single-server", "load-balancer")
    )
    file.write_text(named.replace("[application]", "[application]\nservers = 2", 1))
    try:
        await asyncio.to_thread(fleet.start)
        assert not pooled(fleet) and names(fleet).isdisjoint({pgbouncer.NAME})
        async with Held(fleet) as held:
            with OpenLoad(fleet) as load:
                await asyncio.to_thread(load.wait_for_more)
                await asyncio.to_thread(Command(fleet, "scale", "app=4").wait_done)
                assert pooled(fleet) and fleet.node(pgbouncer.NAME).state == "ready"
                await asyncio.to_thread(load.wait_for_more, 200)
                await asyncio.to_thread(Command(fleet, "scale", "app=2").wait_done)
                await asyncio.to_thread(load.wait_for_more)
                assert pooled(fleet), "it stays: servers that come and go do not move everybody each time"
        assert not load.failed
        assert held.most <= 2 * CONNECTIONS
        await asyncio.to_thread(fleet.end)
        fleet.stage = "load-balancer"
        await asyncio.to_thread(fleet.start)
        assert not pooled(fleet), "until the next start"
        assert fleet.healthy()
    finally:
        await asyncio.to_thread(fleet.end)
        assert fleet.pids() == []


def pooled(fleet: RunningFleet) -> bool:
    """Whether the application is told of the pooler."""
    return endpoints.read(fleet.state.placement().endpoints).database.shards[0].nodes[0].pooled


def names(fleet: RunningFleet) -> set[str]:
    return {node.name for node in fleet.status().nodes}


def test_a_missing_program_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbouncer, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="PgBouncer") as caught:
        pgbouncer.find()
    assert "apt-get install pgbouncer" in caught.value.hint and 'pooler = "off"' in caught.value.hint

"""An application grows and shrinks while it serves, and its command is killed at every step."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from outgrow import endpoints
from outgrow.engines.postgres.postgres import ADMIN
from tests.support.fleets import RunningFleet, alive, make_application
from tests.support.growing import Command, Traffic

STEPS = ("prepare", "create-schema", "capture", "copy", "verify", "switch", "settle")
DASHBOARD_OFF = "\n[dashboard]\nenabled = false\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    """Stage 1, running."""
    directory = make_application(tmp_path / "hello")
    with (directory / "outgrow.toml").open("a") as file:
        file.write(DASHBOARD_OFF)
    made = RunningFleet(directory)
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def done(fleet: RunningFleet, *arguments: str) -> str:
    return Command(fleet, *arguments).wait_done()


def engine(fleet: RunningFleet) -> str:
    return endpoints.read(fleet.state.placement().endpoints).database.engine


def file_of(fleet: RunningFleet) -> Path:
    return fleet.state.placement().data / "hello.db"


def left_in_file(fleet: RunningFleet) -> list[str]:
    """What a growth has put into the SQLite file."""
    with sqlite3.connect(file_of(fleet)) as connection:
        found = connection.execute(
            "SELECT name FROM sqlite_schema WHERE name LIKE 'outgrow_c%' OR name = 'outgrow_fence'"
        ).fetchall()
    connection.close()
    return [name for (name,) in found]


def require_taken_back(fleet: RunningFleet) -> None:
    """Nothing of the growth is left."""
    assert engine(fleet) == "sqlite"
    assert left_in_file(fleet) == []
    assert [node.name for node in fleet.status().nodes if node.name.startswith("postgres")] == []
    assert not (fleet.state.placement().data / "postgres").exists()
    assert not (fleet.state.growth / "journal.jsonl").exists()
    assert not any("postgres" in Path(f"/proc/{pid}/cmdline").read_text() for pid in fleet.pids())


def stage_in_file(fleet: RunningFleet) -> str:
    return (fleet.directory / "outgrow.toml").read_text().split('stage = "')[1].split('"')[0]


def test_it_grows_and_shrinks_and_nobody_notices(fleet: RunningFleet) -> None:
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        said = done(fleet, "grow", "separate-database")
        assert "writes were held for" in said and "checksum" in said
        assert engine(fleet) == "postgres" and stage_in_file(fleet) == "separate-database"
        traffic.wait_for_more()
        seeding = Command(fleet, "seed", "--", "1500")  # a second process, all through the move
        traffic.wait_for_more()
        said = done(fleet, "shrink")
        assert "at stage single-server" in said
        assert engine(fleet) == "sqlite" and stage_in_file(fleet) == "single-server"
        traffic.wait_for_more()
        seeding.wait_done()
    assert traffic.wrong == []
    traffic.require_all_there()
    assert left_in_file(fleet) == []
    with sqlite3.connect(file_of(fleet)) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (1500 + len(traffic.written),)
    connection.close()
    audit = (fleet.state.growth / "audit.jsonl").read_text().splitlines()
    moves = [line for line in audit if '"move":"cache flush"' not in line]  # that is the seed's
    assert len(moves) == 2 and all('"outcome":"done"' in line for line in moves)


def kill_all_along(fleet: RunningFleet, traffic: Traffic, begin: tuple[str, ...]) -> int:
    """Begin, and kill it when each step begins and when each is done; each time go on from there."""
    kills = 0
    moments = [(event, step, "") for step in STEPS for event in ("applying", "done")]
    moments.insert(moments.index(("done", "switch", "")), ("applying", "switch", "decisive_epoch"))
    command = Command(fleet, *begin)
    for number, (event, step, kept) in enumerate(moments):
        if not command.wait_for(event, step, kept):
            continue  # it was faster than the kill
        command.kill()
        kills += 1
        traffic.wait_for_more(3)
        assert fleet.healthy()
        if (fleet.state.growth / "journal.jsonl").exists():
            again = begin if number % 2 else ("grow", "--resume")
            command = Command(fleet, *again)
    command.wait()
    if (fleet.state.growth / "journal.jsonl").exists():
        done(fleet, "grow", "--resume")
    return kills


@pytest.mark.timeout(240)
def test_killed_at_every_step_and_finished(fleet: RunningFleet) -> None:
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        assert kill_all_along(fleet, traffic, ("grow", "separate-database")) >= 10
        assert engine(fleet) == "postgres" and stage_in_file(fleet) == "separate-database"
        assert kill_all_along(fleet, traffic, ("shrink", "single-server")) >= 10
        assert engine(fleet) == "sqlite" and stage_in_file(fleet) == "single-server"
    assert traffic.wrong == []
    traffic.require_all_there()
    assert left_in_file(fleet) == []


@pytest.mark.timeout(240)
def test_killed_and_taken_back(fleet: RunningFleet) -> None:
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        for step in ("prepare", "copy", "switch"):
            command = Command(fleet, "grow", "separate-database")
            assert command.wait_for("applying", step), command.said
            command.kill()
            traffic.wait_for_more(3)
            shown = msgspec.json.decode(done(fleet, "status", "--json"))["growth"]
            assert shown["worked_on_by"] is None and shown["ways"][0] == "outgrow grow --resume"
            assert shown["after"] == "separate-database" and shown["step"] == step
            again = Command(fleet, "shrink")
            assert again.wait() == 2 and "is not finished" in again.said, again.said
            if fleet.state.growing() and engine(fleet) == "sqlite":
                assert "at stage single-server" in done(fleet, "grow", "--undo")
                require_taken_back(fleet)
        traffic.wait_for_more()
        interrupted = Command(fleet, "grow", "separate-database")
        assert interrupted.wait_for("applying", "copy")
        interrupted.process.send_signal(signal.SIGINT)
        assert interrupted.wait() == 130, interrupted.said
        require_taken_back(fleet)
    assert traffic.wrong == []
    traffic.require_all_there()


SEEDED = "text NOT LIKE 'writer %'"
"""No client looks for these."""


def lose_in_file(fleet: RunningFleet) -> None:
    """A row of the SQLite file goes, and no trigger notes it."""
    with sqlite3.connect(file_of(fleet), timeout=10) as connection:
        connection.execute("DROP TRIGGER outgrow_capture_notes_delete")
        connection.execute(f"DELETE FROM notes WHERE id = (SELECT min(id) FROM notes WHERE {SEEDED})")
    connection.close()


def lose_in_postgres(fleet: RunningFleet) -> None:
    """The same in PostgreSQL."""

    async def lose() -> None:
        url = urlsplit(endpoints.read(fleet.state.placement().endpoints).database.shards[0].nodes[0].url)
        secrets = endpoints.read_secrets(fleet.state.placement().operator_secrets)
        connection = await asyncpg.connect(
            host=url.hostname,
            port=url.port,
            database=url.path[1:],
            user=ADMIN,
            password=secrets.passwords["admin"],
        )
        await connection.execute("SET session_replication_role = replica")  # no trigger fires
        await connection.execute(f"DELETE FROM notes WHERE id = (SELECT min(id) FROM notes WHERE {SEEDED})")
        await connection.close()

    asyncio.run(lose())


def require_verification_fails(
    fleet: RunningFleet, begin: tuple[str, ...], lose: Callable[[RunningFleet], None]
) -> None:
    """A row is lost behind the back of the triggers, once all has been copied: found, and taken back."""
    before = engine(fleet)
    command = Command(fleet, *begin)
    assert command.wait_for("done", "copy"), command.said
    command.kill()
    lose(fleet)
    again = Command(fleet, "grow", "--resume")
    assert again.wait() == 1, again.said
    assert "step verify failed, and all was taken back: table notes: " in again.said, again.said
    assert engine(fleet) == before and not fleet.state.growing() and fleet.healthy()


@pytest.mark.timeout(240)
def test_a_failing_verification_leaves_it_where_it_was(fleet: RunningFleet) -> None:
    done(fleet, "seed", "--", "300")
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        require_verification_fails(fleet, ("grow", "separate-database"), lose_in_file)
        require_taken_back(fleet)
        traffic.wait_for_more()
        done(fleet, "grow", "separate-database")
        require_verification_fails(fleet, ("shrink",), lose_in_postgres)
        traffic.wait_for_more()
        done(fleet, "shrink")
    assert traffic.wrong == []
    traffic.require_all_there()
    assert left_in_file(fleet) == []


@pytest.mark.timeout(240)
def test_the_servers_die_meanwhile(fleet: RunningFleet) -> None:
    with Traffic(fleet, writers=1) as traffic:
        traffic.wait_for_more()
        assert Command(fleet, "seed", "--", "2000").wait() == 0

        growing = Command(fleet, "grow", "separate-database")
        assert growing.wait_for("applying", "copy")
        victim = fleet.kill("postgres")
        code = growing.wait()
        assert not alive(victim)
        if code:  # it was copying still
            assert "all was taken back" in growing.said, growing.said
            require_taken_back(fleet)
        else:
            done(fleet, "shrink")
        assert traffic.wrong == []

        traffic.lenient = True
        for moment in (("applying", "verify"), ("applying", "settle")):
            growing = Command(fleet, "grow", "separate-database")
            assert growing.wait_for(*moment)
            fleet.kill_supervisor()
            growing.wait()
            began = engine(fleet)
            fleet.start()
            assert engine(fleet) == began
            traffic.wait_for_more()
            if fleet.state.growing():
                done(fleet, "grow", "--resume")
            if engine(fleet) == "postgres":
                traffic.wait_for_more()
                done(fleet, "shrink")
        traffic.wait_for_more()

        growing = Command(fleet, "grow", "separate-database")
        assert growing.wait_for("applying", "copy")
        fleet.end()
        growing.wait()
        fleet.start()
        traffic.wait_for_more(5)
        if fleet.state.growing():
            done(fleet, "grow", "--undo")
        traffic.wait_for_more(5)
    assert traffic.wrong == []
    traffic.require_all_there()


def test_refused_before_anything_is_changed(fleet: RunningFleet) -> None:
    assert "no growth is under way" in refused(fleet, "grow", "--resume")
    assert "no growth is under way" in refused(fleet, "grow", "--undo")
    assert "already" in refused(fleet, "grow", "single-server")
    assert "is at the first stage already" in refused(fleet, "shrink")
    settings = fleet.directory / "outgrow.toml"
    text = settings.read_text()
    settings.write_text(text + '\n[database]\nengine = "sqlite"\n')
    assert "would be wrong" in refused(fleet, "grow", "separate-database")
    settings.write_text(text + '\n[database]\nurl = "postgresql://me@127.0.0.1:1/mine"\n')
    assert "PostgreSQL of your own" in refused(fleet, "grow", "separate-database")
    settings.write_text(text)
    with sqlite3.connect(file_of(fleet)) as connection:
        connection.execute("CREATE TABLE by_hand (id INTEGER PRIMARY KEY)")
        connection.commit()
        said = refused(fleet, "grow", "separate-database", code=1)
        assert "do not have the same tables and columns: by_hand" in said and "all was taken back" in said
        require_taken_back(fleet)
        connection.execute("DROP TABLE by_hand")
    connection.close()


def refused(fleet: RunningFleet, *arguments: str, code: int = 2) -> str:
    command = Command(fleet, *arguments)
    assert command.wait() == code, command.said
    return command.said

"""Backed up under load, destroyed, restored to a moment: exactly what was there then, counted and summed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from outgrow import endpoints
from outgrow.backups import history
from outgrow.backups.mirror import NEWEST
from outgrow.cluster.status import Backups
from outgrow.engines.backup import ARCHIVER
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.growing import Command, Traffic
from tests.support.s3 import S3Server

pytestmark = pytest.mark.timeout(240)
SETTINGS = """
[dashboard]
enabled = false

[backup]
directory = "{folder}"
behind = "2s"
"""
DIGEST = "SELECT count(*), coalesce(md5(string_agg(id::text || text, ',' ORDER BY id)), '') FROM notes"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    """Stage 2, with backups beside it, and a first copy."""
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    text = file.read_text().replace("single-server", "separate-database")
    file.write_text(text + SETTINGS.format(folder=tmp_path / "backups"))
    made = RunningFleet(directory, "separate-database")
    try:
        made.start()
        wait_until(lambda: backups(made).copies == 1 and backups(made).behind == 0, "the first copy")
        yield made
    finally:
        made.end()
        assert made.pids() == []


def backups(fleet: RunningFleet) -> Backups:
    return fleet.status().backups or Backups()


def done(fleet: RunningFleet, *arguments: str) -> str:
    return Command(fleet, *arguments).wait_done()


def digest(fleet: RunningFleet) -> tuple[int, str]:
    """How many notes there are, and a checksum of all of them."""
    place = fleet.state.placement()
    url = endpoints.read(place.endpoints).database.shards[0].nodes[0].url
    password = endpoints.read_secrets(place.secrets).passwords["*"]

    async def ask() -> Any:
        connection = await asyncpg.connect(url, password=password)
        try:
            return await connection.fetchrow(DIGEST)
        finally:
            await connection.close()

    count, checksum = asyncio.run(ask())
    return count, checksum


def moment() -> str:
    """Now, as it is typed; the next write is later."""
    found = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    return found


def test_destroyed_under_load_and_restored_to_a_moment(fleet: RunningFleet, tmp_path: Path) -> None:
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        assert "read again and right" in done(fleet, "backup", "now"), "under load"
        traffic.wait_for_more()
    then, first = moment(), digest(fleet)
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        written = dict(traffic.written)
    last, late = digest(fleet), moment()
    assert traffic.wrong == [] and last != first
    wait_until(lambda: backups(fleet).behind == 0, "the last write in the archive")

    fleet.kill_supervisor()
    fleet.end()
    shutil.rmtree(fleet.state.folder)  # the data, the secrets, everything
    refused = Command(fleet, "restore", "--to", "2001-01-01T00:00:00Z", "--yes")
    assert refused.wait() == 2 and "nothing can be restored" in refused.said

    killed = Command(fleet, "restore", "--to", late, "--yes")
    wait_until(
        lambda: "reading the write-ahead log" in killed.said or killed.process.poll() is not None, "it"
    )
    killed.kill()
    assert "restored" in done(fleet, "restore", "--to", late, "--yes")
    fleet.start()
    assert digest(fleet) == last
    for note, text in written.items():
        assert fleet.read(note) == text
    busy = Command(fleet, "restore", "--to", then, "--yes")
    assert busy.wait() != 0 and "run" in busy.said, busy.said
    fleet.end()

    said = done(fleet, "restore", "--to", then, "--yes")
    assert "the data of before is in" in said
    fleet.start()
    assert digest(fleet) == first, "not a write more, not one less"
    fleet.write("after all that")
    wait_until(lambda: backups(fleet).copies == 1, "a copy of the new line")
    lines = history.histories(tmp_path / "backups" / "hello")
    assert len(lines) == 3, "each restore begins another line; the old ones stay"


BESIDE = """
import asyncio, sys
from pathlib import Path
from outgrow import stages
from outgrow.backups import beside
from outgrow.topology import parse_file

async def main(directory, moment):
    topology = stages.apply(parse_file(directory / "outgrow.toml"), "separate-database")
    async with beside.restored(directory, topology, moment) as url:
        print(url, flush=True)
        await asyncio.sleep(100)

asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
"""


def test_restored_beside_the_fleet_and_killed(fleet: RunningFleet) -> None:
    there, moment = fleet.write("until then"), time.time()
    time.sleep(0.05)
    later = fleet.write("afterwards")
    wait_until(lambda: backups(fleet).behind == 0, "the last write in the archive")
    before = set(fleet.pids())
    argv = [sys.executable, "-c", BESIDE, str(fleet.directory), str(moment)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as looking:
        assert looking.stdout is not None
        url = looking.stdout.readline().strip()
        try:
            assert httpx.get(f"{url}/notes/{there}", timeout=10).json()["text"] == "until then"
            assert httpx.get(f"{url}/notes/{later}", timeout=10).status_code == 404
            assert len(set(fleet.pids()) - before) >= 2, "a server and a process of the application"
        finally:
            looking.kill()
    wait_until(lambda: set(fleet.pids()) <= before, "the end of all that it had started")
    assert fleet.read(later) == "afterwards" and fleet.healthy()


def test_everything_is_lost_but_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Server(tmp_path / "store")
    store.start()
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    text = file.read_text().replace("single-server", "separate-database")
    settings = SETTINGS.format(folder=tmp_path / "backups") + 'mirror = "s3://backups/hello"\n'
    file.write_text(text + settings)
    fleet = RunningFleet(directory, "separate-database")
    try:
        fleet.start()
        wait_until(lambda: backups(fleet).copies == 1 and backups(fleet).behind == 0, "the first copy")
        note = fleet.write("in the store, too")
        written = time.time()
        mirrored = f"{NEWEST} of after the write"
        wait_until(lambda: backups(fleet).at - (backups(fleet).mirror_behind_s or 0) > written + 1, mirrored)
        assert store.environment["AWS_SECRET_ACCESS_KEY"] not in commands(fleet)
        fleet.end()
        shutil.rmtree(fleet.state.folder)
        shutil.rmtree(tmp_path / "backups")
        assert "MB" in done(fleet, "backup", "fetch")
        done(fleet, "restore", "--to", "latest", "--yes")
        fleet.start()
        assert fleet.read(note) == "in the store, too"
        wait_until(lambda: backups(fleet).copies == 1, "a copy of the new line")
    finally:
        fleet.end()
        store.stop()
        assert fleet.pids() == []


def commands(fleet: RunningFleet) -> str:
    """What everybody on this machine can see of its processes."""
    return "\n".join(_command(Path(f"/proc/{pid}")).decode() for pid in fleet.pids())


def test_an_archive_that_falls_behind_is_told_of(fleet: RunningFleet, tmp_path: Path) -> None:
    pid = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"pg_receivewal" in _command(entry)
        and entry.name in map(str, fleet.pids())
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        fleet.write("nobody archives this yet")
        wait_until(lambda: any("behind" in each for each in fleet.status().warnings), "a warning")
        assert (backups(fleet).behind or 0) > 0
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not any("behind" in each for each in fleet.status().warnings), "the end of it")
    fleet.kill(ARCHIVER)
    fleet.write("nor this")
    wait_until(lambda: backups(fleet).behind == 0 and fleet.node(ARCHIVER).restarts > 0, "the archive again")
    fleet.kill("postgres")
    wait_until(fleet.healthy, "the database again")
    fleet.write("and this")
    wait_until(lambda: backups(fleet).behind == 0 and backups(fleet).connected, "the archive again")
    listed = msgspec.json.decode(done(fleet, "backup", "list", "--json"))
    assert len(listed["lines"]) == 1 and len(listed["lines"][0]["copies"]) == 1
    copies = tmp_path / "backups" / "hello" / "0001" / "copies"
    copies.rename(copies.with_name("aside"))
    copies.touch()
    wait_until(
        lambda: any("copy for backups failed" in each for each in fleet.status().warnings), "that told"
    )
    assert (backups(fleet).failed_at or 0) > time.time() - 60


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_no_password_is_to_be_seen(fleet: RunningFleet) -> None:
    place = fleet.state.placement()
    secret = endpoints.read_secrets(place.operator_secrets).passwords["replication"]
    assert (place.data / "backup-passwords").stat().st_mode & 0o077 == 0
    shown = [path.read_text(errors="replace") for path in fleet.state.logs.iterdir()]
    for pid in fleet.pids():
        shown.append(Path(f"/proc/{pid}/cmdline").read_text())
        shown.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
    assert not any(secret in text for text in shown)


def test_an_application_that_grows_has_backups_from_then_on(tmp_path: Path) -> None:
    directory = make_application(tmp_path / "hello")
    with (directory / "outgrow.toml").open("a") as file:
        file.write(SETTINGS.format(folder=tmp_path / "backups"))
    fleet = RunningFleet(directory)
    try:
        fleet.start()
        assert fleet.status().backups is None and any(
            "SQLite file" in each for each in fleet.status().warnings
        )
        assert Command(fleet, "backup", "now").wait() == 2
        note = fleet.write("moved, and backed up")
        done(fleet, "grow", "separate-database")
        wait_until(lambda: backups(fleet).copies == 1 and backups(fleet).behind == 0, "the first copy")
        done(fleet, "shrink")
        assert {node.name for node in fleet.status().nodes if node.state != "done"} == {"app"}
        assert fleet.read(note) == "moved, and backed up" and fleet.status().backups is None
    finally:
        fleet.end()
        assert fleet.pids() == []

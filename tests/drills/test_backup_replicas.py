"""Backups of a database with replicas: they follow a failover, and what was restored has both halves."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import httpx
import pytest

from outgrow.backups import history
from tests.drills.test_backup import SETTINGS, backups, done
from tests.support.fleets import RunningFleet, make_application, wait_until


def primary_of(fleet: RunningFleet) -> str | None:
    return next((node.name for node in fleet.status().nodes if node.role == "primary"), None)


def written(fleet: RunningFleet, text: str, notes: list[str]) -> bool:
    """Whether a write was acknowledged; then its id is the last of the notes."""
    with contextlib.suppress(httpx.HTTPError):
        notes.append(fleet.write(text))
    return bool(notes)


@pytest.mark.timeout(240)
def test_the_archive_follows_a_failover(tmp_path: Path) -> None:
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    replicated = '\n[database]\nreplicas = 2\nreplication = "semi-sync"\n'
    text = file.read_text().replace("single-server", "replication")
    file.write_text(text + replicated + SETTINGS.format(folder=tmp_path / "backups"))
    fleet = RunningFleet(directory, "replication")
    try:
        fleet.start()
        wait_until(lambda: backups(fleet).copies == 1 and backups(fleet).behind == 0, "the first copy")
        before = fleet.write("before the failover")
        primary = primary_of(fleet)
        assert primary is not None
        fleet.kill(primary)

        wait_until(lambda: primary_of(fleet) not in (None, primary), "another primary")
        after: list[str] = []
        wait_until(lambda: written(fleet, "after the failover", after), "a write")
        wait_until(lambda: backups(fleet).connected and backups(fleet).behind == 0, "the archive")
        assert len(history.histories(tmp_path / "backups" / "hello")) == 1, "no write was left behind"
        done(fleet, "backup", "now")
        fleet.end()

        file.write_text(file.read_text().replace('replicas = 2\nreplication = "semi-sync"', "replicas = 0"))
        shutil.rmtree(fleet.state.placement().data)
        done(fleet, "restore", "--to", "latest", "--yes")
        fleet.start()
        assert fleet.read(before) == "before the failover" and fleet.read(after[0]) == "after the failover"
    finally:
        fleet.end()
        assert fleet.pids() == []

"""Backups of a database with replicas: they follow a failover, and what was restored has both halves."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from outgrow.backups import history
from tests.drills.test_backup import SETTINGS, backups, done, moment
from tests.support.fleets import RunningFleet, make_application, wait_until


def primary_of(fleet: RunningFleet) -> str | None:
    return next((node.name for node in fleet.status().nodes if node.role == "primary"), None)


def whole(fleet: RunningFleet) -> bool:
    """Whether there are a primary and two replicas."""
    roles = [node.role for node in fleet.status().nodes if node.role]
    return len(roles) == 3 and roles.count("primary") == 1


def written(fleet: RunningFleet, text: str, notes: list[str]) -> bool:
    """Whether a write was acknowledged; then its id is the last of the notes."""
    with contextlib.suppress(httpx.HTTPError):
        notes.append(fleet.write(text))
    return bool(notes)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    """A primary with two replicas, and a first copy."""
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    replicated = '\n[database]\nreplicas = 2\nreplication = "semi-sync"\n'
    text = file.read_text().replace("single-server", "replication")
    file.write_text(text + replicated + SETTINGS.format(folder=tmp_path / "backups"))
    made = RunningFleet(directory, "replication")
    try:
        made.start()
        wait_until(lambda: backups(made).copies == 1 and backups(made).behind == 0, "the first copy")
        yield made
    finally:
        made.end()
        assert made.pids() == []


@pytest.mark.timeout(300)
def test_the_archive_follows_a_failover_and_restores_in_place(fleet: RunningFleet, tmp_path: Path) -> None:
    before, then = fleet.write("before the failover"), moment()
    primary = primary_of(fleet)
    assert primary is not None
    fleet.kill(primary)
    wait_until(lambda: primary_of(fleet) not in (None, primary), "another primary")
    after: list[str] = []
    wait_until(lambda: written(fleet, "after the failover", after), "a write")
    wait_until(lambda: backups(fleet).connected and backups(fleet).behind == 0, "the archive")
    assert len(history.histories(tmp_path / "backups" / "hello")) == 1, "no write was left behind"
    fleet.end()

    said = done(fleet, "restore", "--to", then, "--yes")
    assert "replicated.before-" in said
    assert list(fleet.state.placement().data.glob("replicated.before-*/postgres-3"))
    fleet.start()
    assert fleet.read(before) == "before the failover" and fleet.read(after[0]) is None
    last = fleet.write("after the restore")
    wait_until(lambda: whole(fleet), "the replicas")
    wait_until(lambda: backups(fleet).copies == 1 and backups(fleet).behind == 0, "a copy of the new line")
    fleet.end()

    shutil.rmtree(fleet.state.folder)  # the secrets, too: whoever restores has other ones
    done(fleet, "restore", "--to", "latest", "--yes")
    fleet.start()
    assert fleet.read(before) == "before the failover" and fleet.read(last) == "after the restore"
    wait_until(lambda: whole(fleet), "the replicas")

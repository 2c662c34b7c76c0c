"""Backups of a database that gets replicas and gives them up while it serves: one line, any moment of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.backups import history
from tests.drills.test_backup import SETTINGS, backups, digest, done
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.growing import Traffic
from tests.support.patroni import program

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    """Stage 2, with a first copy."""
    program()
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    text = file.read_text().replace("single-server", "separate-database")
    file.write_text(text + SETTINGS.format(folder=tmp_path / "backups"))
    made = RunningFleet(directory, "separate-database")
    try:
        made.start()
        wait_until(lambda: archived(made) and backups(made).copies == 1, "the first copy")
        yield made
    finally:
        made.end()
        assert made.pids() == []


def archived(fleet: RunningFleet) -> bool:
    return backups(fleet).connected and backups(fleet).behind == 0


def test_there_and_back_without_a_gap(fleet: RunningFleet, tmp_path: Path) -> None:
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        done(fleet, "grow", "replication")
        wait_until(lambda: backups(fleet).connected, "the archive of the new primary")
        traffic.wait_for_more()
        done(fleet, "shrink", "separate-database")
        traffic.wait_for_more()
    last = digest(fleet)
    assert traffic.wrong == []
    wait_until(lambda: archived(fleet), "the last write in the archive")
    assert backups(fleet).copies == 1, "of stage 2: everything after it comes from the log alone"
    assert len(history.histories(tmp_path / "backups" / "hello")) == 1
    fleet.end()
    done(fleet, "restore", "--to", "latest", "--yes")
    fleet.start()
    assert digest(fleet) == last

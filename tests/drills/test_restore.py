"""The drill of backups: every write until a moment is restored beside the fleet, and not one more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.test_backup import SETTINGS, backups
from tests.drills.test_drills_command import drilled, outgrow
from tests.support.fleets import RunningFleet, wait_until
from tests.support.ports import free_port
from tests.support.source import ROOT

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    """Conduit at stage 2, with a first copy."""
    directory = tmp_path / "conduit"
    ignored = shutil.ignore_patterns(".outgrow", "__pycache__")
    shutil.copytree(ROOT / "examples" / "conduit", directory, ignore=ignored)
    file = directory / "outgrow.toml"
    text = file.read_text().partition("[cache]")[0].replace("single-server", "separate-database")
    port = free_port()
    settings = SETTINGS.format(folder=tmp_path / "backups")
    file.write_text(text.replace("port = 8000", f"port = {port}") + settings)
    made = RunningFleet(directory, "separate-database")
    made.port = port
    try:
        made.start()
        wait_until(lambda: backups(made).copies == 1 and backups(made).behind == 0, "the first copy")
        assert outgrow("seed", directory, "--", "--users", "30", "--articles", "100").returncode == 0
        yield made
    finally:
        made.end()
        assert made.pids() == []


def test_every_write_until_the_moment_and_not_one_more(fleet: RunningFleet, tmp_path: Path) -> None:
    document, code = drilled(fleet, "restore", tmp_path / "report.json")
    says = {each["promise"]: each for each in document["findings"]}
    assert [each for each in document["findings"] if not each["held"]] == [] and code == 0
    until, later = [each["figures"]["looked_for"] for name, each in says.items() if "moment" in name]
    assert until > 10 and later > 5
    assert backups(fleet).copies == 2 and fleet.healthy()
    assert not (fleet.state.placement().data / "restored").exists()
    assert not [pid for pid in fleet.pids() if b"restored" in Path(f"/proc/{pid}/cmdline").read_bytes()]

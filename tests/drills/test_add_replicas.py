"""An application gets replicas and gives them up while it serves, and its command is killed at every step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow import endpoints
from outgrow.backups import history
from tests.drills.test_backup import backups
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.growing import Command, Traffic
from tests.support.patroni import program

STEPS = ("front", "prepare", "verify", "switch", "settle")
BACK = ("prepare", "verify", "switch", "front", "settle")
SETTINGS = '\n[dashboard]\nenabled = false\n[database]\npool = 5\n[backup]\ndirectory = "../backups"\n'
HELD_MAX_S = 1.0
LATE_S = 5.0
"""What a replica may be behind at the most that is asked (database.max_lag)."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    """Stage 2, running."""
    program()
    directory = make_application(tmp_path / "hello")
    text = (directory / "outgrow.toml").read_text().replace("single-server", "separate-database")
    (directory / "outgrow.toml").write_text(text + SETTINGS)
    made = RunningFleet(directory, "separate-database")
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def done(fleet: RunningFleet, *arguments: str) -> str:
    return Command(fleet, *arguments).wait_done()


def nodes(fleet: RunningFleet) -> int:
    return len(endpoints.read(fleet.state.placement().endpoints).database.shards[0].nodes)


def stage_in_file(fleet: RunningFleet) -> str:
    return (fleet.directory / "outgrow.toml").read_text().split('stage = "')[1].split('"')[0]


def held_s(said: str) -> float:
    return float(said.partition("writes were held for ")[2].partition(" s")[0])


def require_taken_back(fleet: RunningFleet) -> None:
    """Nothing of the replicas is left."""
    assert nodes(fleet) == 1
    kept = fleet.state.placement().data
    assert not (kept / "replicated").exists()
    names = [node.name for node in fleet.status().nodes]
    assert not {"etcd-1", "postgres-lease", "postgres-1", "postgres-2"}.intersection(names)
    assert not (fleet.state.growth / "journal.jsonl").exists()


def require_archived(fleet: RunningFleet) -> None:
    """The backups have gone along, without a gap."""
    wait_until(lambda: backups(fleet).connected and backups(fleet).behind == 0, "the archive")
    assert len(history.histories(fleet.directory.parent / "backups" / "hello")) == 1


@pytest.mark.timeout(240)
def test_it_grows_and_shrinks_and_nobody_notices(fleet: RunningFleet) -> None:
    with Traffic(fleet, late_s=LATE_S) as traffic:
        traffic.wait_for_more()
        said = done(fleet, "grow", "replication")
        assert "checksum" in said and held_s(said) < HELD_MAX_S
        assert nodes(fleet) == 3 and stage_in_file(fleet) == "replication"
        traffic.wait_for_more(50)
        said = done(fleet, "shrink", "load-balancer")
        assert "checksum" in said and held_s(said) < HELD_MAX_S
        assert nodes(fleet) == 1 and stage_in_file(fleet) == "load-balancer"
        traffic.wait_for_more()
    assert traffic.wrong == []
    traffic.require_all_there()
    require_taken_back(fleet)
    require_archived(fleet)
    assert backups(fleet).copies == 1, "of stage 2: everything after it comes from the log alone"
    fleet.stage = "load-balancer"
    fleet.end()
    done(fleet, "restore", "--to", "latest", "--yes")
    fleet.start()
    traffic.require_all_there()


def kill_all_along(
    fleet: RunningFleet, traffic: Traffic, begin: tuple[str, ...], steps: tuple[str, ...]
) -> int:
    """Begin, and kill it when each step begins and when each is done; each time go on from there."""
    kills = 0
    moments = [(event, step, "") for step in steps for event in ("applying", "done")]
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
    code = command.wait()
    assert code in (0, -signal.SIGKILL), command.said
    if (fleet.state.growth / "journal.jsonl").exists():
        done(fleet, "grow", "--resume")
    return kills


@pytest.mark.timeout(400)
def test_killed_at_every_step_and_finished(fleet: RunningFleet) -> None:
    with Traffic(fleet, late_s=LATE_S) as traffic:
        traffic.wait_for_more()
        assert kill_all_along(fleet, traffic, ("grow", "replication"), STEPS) >= 7
        assert nodes(fleet) == 3 and stage_in_file(fleet) == "replication"
        assert kill_all_along(fleet, traffic, ("shrink", "separate-database"), BACK) >= 7
        assert nodes(fleet) == 1 and stage_in_file(fleet) == "separate-database"
    assert traffic.wrong == []
    traffic.require_all_there()
    require_taken_back(fleet)
    require_archived(fleet)


@pytest.mark.timeout(240)
def test_taken_back(fleet: RunningFleet) -> None:
    with Traffic(fleet, late_s=LATE_S) as traffic:
        traffic.wait_for_more()
        command = Command(fleet, "grow", "replication")
        assert command.wait_for("applying", "verify", "")
        command.kill()
        done(fleet, "grow", "--undo")
        require_taken_back(fleet)
        traffic.wait_for_more()
        command = Command(fleet, "grow", "replication")
        assert command.wait_for("applying", "prepare", "")
        command.process.send_signal(signal.SIGINT)
        command.wait()
        require_taken_back(fleet)
        traffic.wait_for_more()
        command = Command(fleet, "grow", "replication")
        assert command.wait_for("applying", "switch", "")
        command.kill()
        done(fleet, "grow", "--undo" if nodes(fleet) == 1 else "--resume")
    assert traffic.wrong == []
    traffic.require_all_there()
    require_archived(fleet)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", ["prepare", "switch"])
def test_the_fleet_is_killed_meanwhile(fleet: RunningFleet, step: str) -> None:
    """It starts where the data is, and the growth goes on."""
    with Traffic(fleet, late_s=LATE_S) as traffic:
        traffic.wait_for_more()
        command = Command(fleet, "grow", "replication")
        assert command.wait_for("done", step, "")
        traffic.lenient = True
        command.kill()
        fleet.kill_supervisor()
        fleet.start()
        assert nodes(fleet) == (3 if step == "switch" else 1)
        traffic.wait_for_more()
        done(fleet, "grow", "--resume")
        assert nodes(fleet) == 3 and stage_in_file(fleet) == "replication"
        traffic.wait_for_more()
    traffic.require_all_there()

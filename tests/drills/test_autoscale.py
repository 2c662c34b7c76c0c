"""Load rises and falls, and servers come and go by themselves: each has a fifth of a core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outgrow.topology import parse_file
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.growing import Command
from tests.support.lacking import lacking
from tests.support.open_load import OpenLoad

SETTINGS = """
[dashboard]
enabled = false
[fleet]
host_cpu = 0.2
[autoscale]
maximum = 3
cpu = 0.5
in_window = "4s"
cool_down = "2s"
step = 1
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    """One server behind a balancer."""
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    text = file.read_text().replace('"single-server"', '"load-balancer"')
    assert "[application]\n" in text
    file.write_text(text.replace("[application]\n", "[application]\nservers = 1\n") + SETTINGS)
    made = RunningFleet(directory, "load-balancer")
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def servers(fleet: RunningFleet) -> int:
    nodes = fleet.status().nodes
    return sum(node.tier == "application" and node.state == "ready" for node in nodes)


@pytest.mark.alone
def test_servers_follow_the_load(fleet: RunningFleet) -> None:
    if fleet.status().warnings:
        lacking(fleet.status().warnings[0])
    with OpenLoad(fleet, rate=10) as quiet:
        quiet.wait_for_more(20)
        assert servers(fleet) == 1
        with OpenLoad(fleet, rate=110) as load:
            wait_until(lambda: servers(fleet) >= 2, "a second server", within_s=40)
            load.wait_for_more()
        assert not load.failed
        wait_until(lambda: servers(fleet) == 1, "one server again", within_s=40)
        quiet.wait_for_more(5)
    assert not quiet.failed
    lines = (fleet.state.growth / "audit.jsonl").read_bytes().splitlines()
    told = [msgspec.json.decode(line) for line in lines]
    assert {each["outcome"] for each in told} == {"done"}
    first, last = told[0]["move"], told[-1]["move"]
    assert first.startswith("autoscale: 1 -> 2, CPU ") and first.endswith("of a target of 50%")
    assert last.startswith("autoscale: 2 -> 1, CPU ")
    assert parse_file(fleet.directory / "outgrow.toml").application.count == 1, "outgrow.toml stays as it is"
    said = Command(fleet, "status").wait_done()
    assert "of 1 to 3 servers" in said and "of 50%" in said and "2 -> 1" in said


def test_the_number_outlives_the_fleet_and_a_person_has_the_last_word(fleet: RunningFleet) -> None:
    def floor(figure: int) -> None:
        file = fleet.directory / "outgrow.toml"
        file.write_text(file.read_text().replace("[autoscale]\n", f"[autoscale]\nminimum = {figure}\n"))

    floor(2)
    Command(fleet, "scale", "app.workers=1").wait_done()
    wait_until(lambda: servers(fleet) == 2, "what is the least")
    fleet.end()
    fleet.start()
    assert servers(fleet) == 2, "as many as ran last"
    Command(fleet, "scale", "app=3").wait_done()
    wait_until(lambda: servers(fleet) == 2, "no more than the load needs", within_s=40)

    file = fleet.directory / "outgrow.toml"
    file.write_text(file.read_text().replace("\ncpu = 0.5\n", "\n"))
    Command(fleet, "scale", "app=1").wait_done()
    assert runs(fleet) is False and servers(fleet) == 1, "it is off, and a person says how many"
    Command(fleet, "scale", "autoscale.cpu=0.5").wait_done()
    assert runs(fleet) is True
    wait_until(lambda: servers(fleet) == 2, "what is the least, again")


def runs(fleet: RunningFleet) -> bool:
    """Whether there is an autoscaler."""
    return "autoscaler" in [node.name for node in fleet.status().nodes]

"""Drills of replication for real: the example at stage 5, whose commits wait for a replica."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard.conftest import Watched
from tests.drills.test_drills_command import broken, drilled, outgrow
from tests.support import patroni
from tests.support.fleets import wait_until
from tests.support.ports import free_port
from tests.support.source import ROOT

TOPOLOGY = """
[cache]
engine = "off"

[balancer.health]
profile = "fast"

[database]
replicas = 2
replication = "semi-sync"
"""


FALSE_ALARM = re.compile(r"\(\d+ status 409\)$")
"""One session in a thousand is told of a lost write that is not lost (docs/replication.md, "Lost writes")."""

WAIT_MAX_S = 4.0
"""Of a write in a switchover, on a machine that is shared with other tests."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Conduit with two servers, a primary and two replicas."""
    patroni.program()
    directory = tmp_path_factory.mktemp("drills") / "conduit"
    ignored = shutil.ignore_patterns(".outgrow", "__pycache__")
    shutil.copytree(ROOT / "examples" / "conduit", directory, ignore=ignored)
    file, port = directory / "outgrow.toml", free_port()
    text = file.read_text().partition("[cache]")[0].replace("single-server", "replication")
    file.write_text(text.replace("port = 8000", f"port = {port}\nservers = 2") + TOPOLOGY)
    made = Watched(directory, "replication")
    made.port = port
    try:
        made.start()
        assert outgrow("seed", directory, "--", "--users", "100", "--articles", "500").returncode == 0
        wait_until(lambda: whole(made), "a primary and two replicas")
        yield made
    finally:
        made.end()
        assert made.pids() == []


def whole(fleet: Watched) -> bool:
    """Whether every node has its role."""
    return sorted(node.role.rpartition(" ")[2] for node in fleet.status().nodes if node.role) == [
        "primary",
        "replica",
        "replica",
    ]


def test_nothing_that_was_promised_is_lost_with_the_primary(fleet: Watched, tmp_path: Path) -> None:
    """Writes wait, reads do not, and the dashboard tells in which phases another one took over."""
    before = next(node.name for node in fleet.status().nodes if node.role == "primary")
    document, _ = drilled(fleet, "lose-host", tmp_path / "report.html")
    assert broken(document, but="It is back") == []  # how fast a host starts is the machine's affair
    says = {each["promise"]: each["figures"] for each in document["findings"]}
    assert says["Every acknowledged write is there."]["acknowledged"] > 20
    assert says["Writes succeed again within 3 s."]["faults"] == 1
    assert f"SIGKILL of the host {before}" in (tmp_path / "report.html").read_text()
    wait_until(lambda: whole(fleet), "every node again")
    snapshot = fleet.snapshot()
    primary, *replicas = snapshot["replicas"]
    assert primary["role"] == "primary" and primary["name"] != before
    assert [each["timeline"] for each in replicas] == [primary["timeline"]] * 2
    failover = snapshot["failovers"][-1]
    assert (failover["before"], failover["after"]) == (before, primary["name"])
    assert {"detection", "election", "promotion"} <= failover["phases"].keys()
    told = [event["text"] for event in fleet.events() if event["kind"] == "failover"]
    assert len(told) == 2 and told[0].startswith(f"{before} is lost") and "writes were away" in told[1]


def test_nobody_notices_a_planned_switchover(fleet: Watched, tmp_path: Path) -> None:
    """Commits wait for a replica that follows the new primary: it does so at once, too."""
    wait_until(lambda: whole(fleet), "every node")
    document, _ = drilled(fleet, "switchover", tmp_path / "report.json")
    wrong = broken(document, but="Writes wait")  # for how long is the machine's affair
    assert [each for each in wrong if FALSE_ALARM.search(each["says"]) is None] == []
    says = {each["promise"]: each["figures"] for each in document["findings"]}
    assert says["Another node becomes the primary."] == {"asked": 1, "done": 1}
    assert 0 < says["Writes wait for less than 1 s."]["worst_s"] < WAIT_MAX_S


def test_nobody_sees_the_past_while_replicas_fall_behind(fleet: Watched, tmp_path: Path) -> None:
    document, code = drilled(fleet, "replica-lag", tmp_path / "report.json")
    assert broken(document) == [] and code == 0
    reasons = [each["reasons"] for each in fleet.snapshot()["replicas"]]
    assert any(reasons), "it is not known where reads go"

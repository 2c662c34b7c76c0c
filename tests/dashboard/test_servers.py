"""The dashboard of several servers behind a balancer: each with its figures, and what becomes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from outgrow.cluster.measure import cpu_seconds
from tests.cli.conftest import run as command
from tests.dashboard.conftest import Watched
from tests.dashboard.test_guard import Page, action
from tests.support.fleets import make_application, wait_until
from tests.support.open_load import OpenLoad


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two servers of stage 4. Tests are in an order: servers are added, and one is hurt."""
    directory = make_application(tmp_path_factory.mktemp("many") / "hello")
    file = directory / "outgrow.toml"
    text = file.read_text().replace('stage = "single-server"', 'stage = "load-balancer"')
    file.write_text(f'{text}\n[balancer.health]\nprofile = "fast"\n')
    fleet = Watched(directory, "load-balancer")
    try:
        fleet.start()
        fleet.wait_seen()
        yield fleet
    finally:
        fleet.end()
        assert fleet.pids() == [], "a process was left behind"


def servers(fleet: Watched) -> dict[str, Any]:
    return {server["name"]: server for server in fleet.snapshot()["servers"]}


def kinds(fleet: Watched, node: str) -> list[str]:
    return [event["kind"] for event in fleet.events() if event.get("node") == node]


def test_each_has_its_part_of_the_traffic_also_as_the_balancer_sees_it(many: Watched) -> None:
    with OpenLoad(many) as load:
        wait_until(
            lambda: all((each["balanced"] or {}).get("share") for each in servers(many).values()), "shares"
        )
        load.wait_for_more(600)
        found = servers(many)
        said = command("status", many.directory)
    assert set(found) == {"app-1", "app-2"}
    for server in found.values():
        assert 0.3 < server["share"] < 0.7 and 0.3 < server["balanced"]["share"] < 0.7
        assert server["rate"] > 10 and 0 < server["p50"] <= server["p95"] <= server["p99"]
        assert server["errors"] == 0 and server["cpu"] > 0 and server["state"] == "ready"
        assert server["balanced"]["state"] == "healthy"
    assert sum(server["share"] for server in found.values()) == pytest.approx(1)
    assert "share" in said.out and "healthy" in said.out and "app-2" in said.out
    drawing = many.snapshot()["drawing"]
    assert drawing["tiers"] == ["clients", "balancer", "application", "database"]
    rates = {(link["source"], link["target"]): link["rate"] for link in drawing["links"]}
    assert rates["clients", "balancer-1"] > 10 and rates["balancer-1", "app-2"] > 5


def test_one_is_added_from_the_page_with_the_commands_lock_and_audit(many: Watched) -> None:
    with OpenLoad(many) as load:
        load.wait_for_more()
        assert Page(many).send(body=b'{"servers": 3}').status_code == 202
        wait_until(lambda: action(many)["outcome"] != "running", "its end")
        assert action(many)["outcome"] == "done" and "+ app-3" in action(many)["line"]
        wait_until(lambda: (servers(many).get("app-3", {}).get("rate") or 0) > 1, "its requests")
    assert not load.failed
    *_, line = (many.state.growth / "audit.jsonl").read_bytes().splitlines()
    audit = msgspec.json.decode(line)
    assert (audit["move"], audit["to"], audit["outcome"]) == ("scale", "application.servers=3", "done")
    assert "servers = 3" in (many.directory / "outgrow.toml").read_text()
    wait_until(lambda: any(event["kind"] == "scale" for event in many.events()), "it in the events")
    wait_until(lambda: "in" in kinds(many, "app-3"), "its first requests in the events")


def test_a_server_that_hangs_is_out_and_comes_back(many: Watched) -> None:
    pid = many.node("app-2").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: servers(many)["app-2"]["state"] in ("unhealthy", "ejected"), "it out")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: servers(many)["app-2"]["state"] == "ready", "it in")
    told = [kind for kind in kinds(many, "app-2") if kind in ("out", "ejected", "in")]
    assert set(told[:-1]) & {"out", "ejected"} and told[-1] == "in"


def test_looking_costs_little(many: Watched) -> None:
    """What docs/dashboard.md says is 1% of a core: a busy machine gets three times as much."""
    pid = many.node("dashboard").pid
    assert pid is not None
    began, first = many.snapshot()["at"], cpu_seconds(pid)
    wait_until(lambda: many.snapshot()["at"] - began > 10, "ten seconds")
    last = cpu_seconds(pid)
    assert first is not None and last is not None and last - first < 10 * 0.03


def test_a_dashboard_that_is_killed_leaves_a_fleet_that_becomes_what_was_asked_for(many: Watched) -> None:
    assert Page(many).send(body=b'{"servers": 4}').status_code == 202
    wait_until(lambda: "servers = 4" in (many.directory / "outgrow.toml").read_text(), "the wish")
    many.kill("dashboard")
    wait_until(
        lambda: any(node.name == "app-4" and node.state == "ready" for node in many.status().nodes), "it"
    )
    many.wait_seen()
    wait_until(lambda: "app-4" in servers(many), "it seen")

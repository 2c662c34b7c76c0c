"""The shared cache comes and goes while it is used; the command that moves it is killed at every step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from outgrow import endpoints
from outgrow.dashboard import caches
from outgrow.engines.redis import cache as redis_cache
from outgrow.engines.redis.client import Account, ask
from outgrow.growth.flush import flush
from tests.support.fleets import RunningFleet, make_application, run, wait_until
from tests.support.growing import Command, Traffic
from tests.support.redis import program

pytestmark = pytest.mark.timeout(240)
STEPS = ("store", "front", "switch", "settle")
SETTINGS = """
[dashboard]
enabled = false

[database]
replicas = 0
"""


def made(directory: Path, stage: str) -> RunningFleet:
    """The application of `outgrow new`, with two servers from stage 3 on."""
    program()
    application = make_application(directory / "hello")
    file = application / "outgrow.toml"
    text = file.read_text().replace("single-server", stage).replace("[cache]", "[cache]\nnodes = 2")
    file.write_text(text + SETTINGS)
    return RunningFleet(application, stage)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """At stage 4; each test leaves it there."""
    running = made(tmp_path_factory.mktemp("fleet"), "load-balancer")
    try:
        running.start()
        yield running
    finally:
        running.end()
        assert running.pids() == []


def done(fleet: RunningFleet, *arguments: str) -> str:
    return Command(fleet, *arguments).wait_done()


def engine(fleet: RunningFleet) -> str:
    """What every process has been told to use."""
    return endpoints.read(fleet.state.placement().endpoints).cache.engine


def runs(fleet: RunningFleet) -> bool:
    """Both of its nodes do."""
    nodes = [node for node in fleet.status().nodes if node.tier == "cache"]
    assert len(nodes) in (0, 2)
    return bool(nodes) and all(node.state == "ready" for node in nodes)


def tell(fleet: RunningFleet, command: str) -> bytes:
    """A command of the application to the cache that runs."""
    password = endpoints.read_secrets(fleet.state.placement().secrets).passwords["cache"]
    host, _, port = str(fleet.node(redis_cache.NAME).address).rpartition(":")
    return ask(Account(host, int(port), "hello", password), command)


def listed(fleet: RunningFleet, server: str) -> set[str]:
    """The notes that this server shows to somebody who has never been there."""
    answer = httpx.get(f"http://{fleet.node(server).own}/notes", timeout=10).raise_for_status()
    return {each["id"] for each in answer.json()["notes"]}


def require_fresh(fleet: RunningFleet) -> None:
    """Every server hears at once of what is written at another: what it keeps would live for minutes."""
    servers = ("app-1", "app-2")
    wait_until(lambda: listed(fleet, servers[0]) == listed(fleet, servers[1]), "servers that agree", 3)
    note = fleet.write("what is new here")
    for server in servers:
        wait_until(lambda at=server: note in listed(fleet, at), f"{server} to show it", 3)  # type: ignore[misc]


def require_back(fleet: RunningFleet) -> None:
    assert engine(fleet) == "memory" and not runs(fleet) and not fleet.state.growing()
    assert fleet.status().stage == "load-balancer"


def loads(fleet: RunningFleet) -> int:
    """Of all processes, since they began."""
    return run(caches.look(fleet.directory)).whole.loads


def test_without_a_shared_cache_every_server_is_told_to_forget(fleet: RunningFleet) -> None:
    servers = ("app-1", "app-2")
    for tags in (["notes"], ["notes:newest"], []):
        for server in servers:
            listed(fleet, server)
        before = loads(fleet)
        for server in servers:
            listed(fleet, server)
        assert loads(fleet) == before, "both have it"
        run(flush(fleet.directory, tags))
        for server in servers:
            listed(fleet, server)
        assert loads(fleet) == before + len(servers)


def test_there_and_back_without_a_failed_request(fleet: RunningFleet) -> None:
    with Traffic(fleet) as growing_up:
        growing_up.wait_for_more()
        growing = Command(fleet, "grow", "cache")
        assert growing.wait_for("done", "store"), growing.said
        key = "outgrow:hello:cache:of-a-process-that-was-first"
        assert tell(fleet, f"SET {key} old") == b"+OK\r\n"
        assert "at stage cache" in growing.wait_done()
        assert tell(fleet, f"EXISTS {key}") == b":0\r\n", "it may be older than what was written meanwhile"
        assert engine(fleet) == "redis" and fleet.status().stage == "cache"
        written = (fleet.directory / "outgrow.toml").read_text()
        assert 'stage = "cache"' in written and "engine" not in written, "the stage says it"
        growing_up.wait_for_more()
    require_fresh(fleet)
    with Traffic(fleet) as shrinking:
        assert "at stage load-balancer" in done(fleet, "shrink", "load-balancer")
        require_back(fleet)
        shrinking.wait_for_more()
    assert growing_up.wrong == shrinking.wrong == [] and growing_up.requests > 100


def kill_all_along(fleet: RunningFleet, traffic: Traffic, begin: tuple[str, str]) -> int:
    """The same command again and again, killed at each step; finished by --resume every other time."""
    kills, command = 0, Command(fleet, *begin)
    for number, step in enumerate(STEPS):
        if not command.wait_for("applying", step):
            continue  # it was faster than the kill
        command.kill()
        kills += 1
        traffic.wait_for_more(5)
        if fleet.state.growing():
            command = Command(fleet, *(begin if number % 2 else ("grow", "--resume")))
    command.wait()
    if fleet.state.growing():
        done(fleet, "grow", "--resume")
    return kills


def test_killed_at_every_step_and_finished(fleet: RunningFleet) -> None:
    with Traffic(fleet) as traffic:
        assert kill_all_along(fleet, traffic, ("grow", "cache")) >= 3
        assert engine(fleet) == "redis" and fleet.status().stage == "cache"
        assert kill_all_along(fleet, traffic, ("shrink", "load-balancer")) >= 2
        require_back(fleet)
    assert traffic.wrong == []


def test_killed_and_taken_back(fleet: RunningFleet) -> None:
    with Traffic(fleet) as traffic:
        for step in ("store", "front", "switch"):
            growing = Command(fleet, "grow", "cache")
            assert growing.wait_for("applying", step), growing.said
            growing.kill()
            traffic.wait_for_more(5)
            assert "at stage load-balancer" in done(fleet, "grow", "--undo")
            require_back(fleet)
        done(fleet, "grow", "cache")
        shrinking = Command(fleet, "shrink", "load-balancer")
        assert shrinking.wait_for("applying", "switch")
        shrinking.kill()
        assert "at stage cache" in done(fleet, "grow", "--undo")
        assert engine(fleet) == "redis" and runs(fleet)
        done(fleet, "shrink", "load-balancer")
    assert traffic.wrong == []


def test_a_process_that_hangs_stops_the_move(fleet: RunningFleet) -> None:
    """It would keep what it has in memory, and the shared cache would not hear of its writes."""
    pid = fleet.node("app-2").pid
    assert pid is not None
    growing = Command(fleet, "grow", "cache")
    assert growing.wait_for("applying", "switch")
    os.kill(pid, signal.SIGSTOP)
    try:
        code = growing.wait()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert code == 1 and "did not answer" in growing.said, growing.said
    if fleet.state.growing():
        done(fleet, "grow", "--undo")
    require_back(fleet)


def test_servers_die_meanwhile(fleet: RunningFleet) -> None:
    """The new cache, then the whole fleet: what was acknowledged is there, and the move ends either way."""
    with Traffic(fleet) as traffic:
        traffic.wait_for_more()
        growing = Command(fleet, "grow", "cache")
        assert growing.wait_for("done", "store")
        fleet.kill(redis_cache.NAME)
        growing.wait()
        if fleet.state.growing():
            done(fleet, "grow", "--resume")
        wait_until(lambda: runs(fleet) or engine(fleet) == "memory", "the cache, or none")
        if engine(fleet) == "redis":
            done(fleet, "shrink", "load-balancer")
        require_back(fleet)
        traffic.lenient = True
        growing = Command(fleet, "grow", "cache")
        assert growing.wait_for("applying", "settle")
        fleet.kill_supervisor()
        growing.wait()
        fleet.stage = (fleet.directory / "outgrow.toml").read_text().split('stage = "')[1].split('"')[0]
        fleet.start()
        if fleet.state.growing():
            done(fleet, "grow", "--resume")
        traffic.wait_for_more()
        assert engine(fleet) == "redis" and runs(fleet)
        done(fleet, "shrink", "load-balancer")
        fleet.stage = "load-balancer"
        require_back(fleet)
        traffic.require_all_there()
    assert traffic.wrong == []


def test_the_plan_says_what_it_will_do(fleet: RunningFleet) -> None:
    said = done(fleet, "grow", "cache", "--plan")
    assert all(step in said for step in STEPS) and "every process changes over" in said
    file = fleet.directory / "outgrow.toml"
    text = file.read_text()
    file.write_text(text.replace("[cache]", '[cache]\nurl = "redis://127.0.0.1:1"'))
    try:
        refused = Command(fleet, "grow", "cache")
        assert refused.wait() == 2 and "cache.url" in refused.said
    finally:
        file.write_text(text)

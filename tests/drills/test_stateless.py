"""Sessions go to another store while they are used; the command that moves them is killed at every step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from outgrow import endpoints
from outgrow.engines.redis import sessions as redis_sessions
from tests.support.fleets import RunningFleet, alive, make_application, wait_until
from tests.support.growing import Command
from tests.support.redis import program
from tests.support.visitors import APPLICATION, Visitors

pytestmark = pytest.mark.timeout(240)
STEPS = ("store", "both", "turn", "carry", "front", "leave", "settle")
SETTINGS = """
[dashboard]
enabled = false

[database]
replicas = 0

[sessions]
engine = "{engine}"
"""


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Two servers with sessions where the parameter says, or one at stage 2 with them in memory.

    Each test leaves it there.
    """
    program()
    stage, engine = request.param
    directory = make_application(tmp_path_factory.mktemp("fleet") / "hello")
    (directory / "app.py").write_text(APPLICATION)
    file = directory / "outgrow.toml"
    text = file.read_text().replace('seed = "app:seed"', "").replace("single-server", stage)
    file.write_text(text + SETTINGS.format(engine=engine))
    made = RunningFleet(directory, stage)
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def at(*places: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fleet", places, indirect=True, ids="-".join)


def done(fleet: RunningFleet, *arguments: str) -> str:
    return Command(fleet, *arguments).wait_done()


def place(fleet: RunningFleet) -> tuple[str, str | None]:
    """Where sessions are published to be, and where else."""
    sessions = endpoints.read(fleet.state.placement().endpoints).sessions
    return sessions.engine, sessions.also.engine if sessions.also is not None else None


def runs_redis(fleet: RunningFleet) -> bool:
    return any(node.name == redis_sessions.NAME and node.state == "ready" for node in fleet.status().nodes)


@at(("separate-database", "memory"))
def test_there_and_back_and_nobody_is_logged_out(fleet: RunningFleet) -> None:
    before = fleet.stage
    with Visitors(fleet) as visitors:
        visitors.wait_for_more()
        said = done(fleet, "grow", "stateless")
        assert "at stage stateless" in said
        assert place(fleet) == ("redis", None) and runs_redis(fleet)
        assert 'engine = "redis"' in (fleet.directory / "outgrow.toml").read_text()
        visitors.wait_for_more()
        done(fleet, "shrink", before)
        assert place(fleet) == ("database", None) and not runs_redis(fleet)
        assert not (fleet.state.placement().data / redis_sessions.NAME).exists()
        assert 'engine = "database"' in (fleet.directory / "outgrow.toml").read_text()
        visitors.wait_for_more()
        visitors.require_those_who_waited()
    assert visitors.wrong == []
    assert visitors.requests > 200


def kill_all_along(fleet: RunningFleet, visitors: Visitors, begin: tuple[str, str]) -> int:
    """The same command again and again, killed at each step; finished by --resume every other time."""
    kills, command = 0, Command(fleet, *begin)
    for number, step in enumerate(STEPS):
        if not command.wait_for("applying", step):
            continue  # it was faster than the kill
        command.kill()
        kills += 1
        visitors.wait_for_more(10)
        if fleet.state.growing():
            command = Command(fleet, *(begin if number % 2 else ("grow", "--resume")))
    command.wait()
    if fleet.state.growing():
        done(fleet, "grow", "--resume")
    return kills


@at(("load-balancer", "database"))
def test_killed_at_every_step_and_finished(fleet: RunningFleet) -> None:
    with Visitors(fleet) as visitors:
        assert kill_all_along(fleet, visitors, ("grow", "stateless")) >= 5
        assert place(fleet) == ("redis", None) and fleet.status().stage == "stateless"
        assert kill_all_along(fleet, visitors, ("shrink", "load-balancer")) >= 4
        assert place(fleet) == ("database", None) and fleet.status().stage == "load-balancer"
        visitors.require_those_who_waited()
    assert visitors.wrong == []


@at(("load-balancer", "database"))
def test_killed_and_taken_back(fleet: RunningFleet) -> None:
    with Visitors(fleet) as visitors:
        for step in ("store", "both", "turn", "carry", "front"):
            growing = Command(fleet, "grow", "stateless")
            assert growing.wait_for("applying", step), growing.said
            growing.kill()
            visitors.wait_for_more(10)
            assert "at stage load-balancer" in done(fleet, "grow", "--undo")
            assert place(fleet) == ("database", None) and not runs_redis(fleet)
            assert not (fleet.state.placement().data / redis_sessions.NAME).exists()
            visitors.wait_for_more(10)
        interrupted = Command(fleet, "grow", "stateless")
        assert interrupted.wait_for("applying", "carry")
        interrupted.process.send_signal(signal.SIGINT)
        assert interrupted.wait() == 130, interrupted.said
        assert place(fleet) == ("database", None) and not fleet.state.growing()
        visitors.require_those_who_waited()

        done(fleet, "grow", "stateless")
        shrinking = Command(fleet, "shrink", "load-balancer")
        assert shrinking.wait_for("done", "carry")
        shrinking.kill()
        if place(fleet)[1] is not None:
            assert "at stage stateless" in done(fleet, "grow", "--undo")
            assert place(fleet) == ("redis", None) and runs_redis(fleet)
        visitors.wait_for_more(10)
        if fleet.state.growing():
            done(fleet, "grow", "--resume")
        if place(fleet)[0] == "redis":
            done(fleet, "shrink", "load-balancer")
        visitors.require_those_who_waited()
    assert visitors.wrong == [] and place(fleet) == ("database", None)


@at(("load-balancer", "database"))
def test_a_process_that_hangs_stops_the_move(fleet: RunningFleet) -> None:
    """Whoever cannot be told of the new store would look for sessions in the old one alone."""
    with Visitors(fleet, count=0) as visitors:
        growing = Command(fleet, "grow", "stateless")
        assert growing.wait_for("applying", "both")
        pid = fleet.node("app-2").pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            assert growing.wait() == 1 and "did not answer" in growing.said, growing.said
        finally:
            os.kill(pid, signal.SIGCONT)
        if fleet.state.growing():
            done(fleet, "grow", "--undo")
        assert place(fleet) == ("database", None) and not runs_redis(fleet)
        visitors.require_those_who_waited()


@at(("load-balancer", "database"))
def test_servers_die_meanwhile(fleet: RunningFleet) -> None:
    """The new store dies, and then the whole fleet, again and again: a session lives through all of it."""
    with Visitors(fleet) as visitors:
        visitors.wait_for_more()
        visitors.lenient = True
        growing = Command(fleet, "grow", "stateless")
        assert growing.wait_for("applying", "both")  # nobody's session is in it yet
        victim = fleet.kill(redis_sessions.NAME)
        growing.wait()
        assert not alive(victim)
        if fleet.state.growing():
            done(fleet, "grow", "--resume")
        visitors.wait_for_more()
        if place(fleet)[0] == "redis":
            done(fleet, "shrink", "load-balancer")

        for step in ("carry", "settle"):
            growing = Command(fleet, "grow", "stateless")
            assert growing.wait_for("applying", step)
            fleet.kill_supervisor()
            growing.wait()
            fleet.stage = stage_in_file(fleet)
            fleet.start()
            visitors.wait_for_more()
            if fleet.state.growing():
                done(fleet, "grow", "--undo" if step == "carry" else "--resume")
            if place(fleet)[0] == "redis":
                done(fleet, "shrink", "load-balancer")
                fleet.stage = "load-balancer"
        visitors.wait_for_more()
        visitors.require_those_who_waited()
    assert visitors.wrong == []


def stage_in_file(fleet: RunningFleet) -> str:
    return (fleet.directory / "outgrow.toml").read_text().split('stage = "')[1].split('"')[0]


@at(("stateless", "redis"))
def test_any_server_may_die(fleet: RunningFleet) -> None:
    # Without new ids: whoever is not told of one, since its server died, is logged out, as after a login.
    with Visitors(fleet, rotating=False) as visitors:
        visitors.lenient = True
        for server in ("app-1", "app-2"):
            visitors.wait_for_more()
            fleet.kill(server)
            wait_until(lambda name=server: fleet.node(name).restarts == 1, "its death to be seen")  # type: ignore[misc]
            wait_until(lambda name=server: fleet.node(name).state == "ready", "it to be back")  # type: ignore[misc]
            visitors.wait_for_more()
        visitors.require_those_who_waited()
    assert visitors.wrong == []


@at(("load-balancer", "off"))
def test_an_application_that_had_no_sessions_gets_them(fleet: RunningFleet) -> None:
    done(fleet, "grow", "stateless")
    assert place(fleet) == ("redis", None) and runs_redis(fleet)
    for server in ("app-1", "app-2"):
        fleet.kill(server)
        wait_until(lambda name=server: fleet.node(name).restarts == 1, "its death to be seen")  # type: ignore[misc]
    wait_until(fleet.healthy, "servers that begin with sessions")
    wait_until(
        lambda: all(node.state == "ready" for node in fleet.status().nodes if node.tier), "all of them"
    )
    with Visitors(fleet) as visitors:
        visitors.wait_for_more()
        done(fleet, "shrink")
        assert place(fleet) == ("database", None) and fleet.status().stage == "load-balancer"
        visitors.require_those_who_waited()
    assert visitors.wrong == []


@at(("load-balancer", "database"))
def test_the_plan_says_what_it_will_do(fleet: RunningFleet) -> None:
    said = done(fleet, "grow", "stateless", "--plan")
    assert all(step in said for step in STEPS) and "every process looks into both stores" in said
    file = fleet.directory / "outgrow.toml"
    text = file.read_text()
    file.write_text(text.replace("[sessions]", '[sessions]\nurl = "redis://127.0.0.1:1"'))
    try:
        refused = Command(fleet, "grow", "stateless")
        assert refused.wait() == 2 and "sessions.url" in refused.said
    finally:
        file.write_text(text)

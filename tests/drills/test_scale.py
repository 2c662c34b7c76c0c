"""Servers come and go, the address changes its owner, everything is killed on the way: nobody notices.

Load is open-loop, on kept connections and on new ones; a quarter of it writes.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from outgrow import endpoints
from outgrow.topology import parse_file
from outgrow.workload import Address
from tests.support.balancing import Load, request
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.growing import Command
from tests.support.lacking import lacking
from tests.support.open_load import OpenLoad


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningFleet]:
    """One that runs, at the stage that its outgrow.toml says."""
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    text = file.read_text().replace('stage = "single-server"', f'stage = "{request.param}"')
    file.write_text(f"{text}\n[dashboard]\nenabled = false\n")
    made = RunningFleet(directory, request.param)
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


at = pytest.mark.parametrize("fleet", ["load-balancer"], indirect=True)
alone = pytest.mark.parametrize("fleet", ["separate-database"], indirect=True)


def done(fleet: RunningFleet, *arguments: str) -> str:
    return Command(fleet, *arguments).wait_done()


def servers(fleet: RunningFleet) -> list[str]:
    """Those that are ready."""
    nodes = fleet.status().nodes
    return sorted(node.name for node in nodes if node.tier == "application" and node.state == "ready")


def wanted(fleet: RunningFleet) -> int:
    return parse_file(fleet.directory / "outgrow.toml").application.count


def require_nothing_failed(fleet: RunningFleet, load: OpenLoad) -> None:
    """No request has failed, and every acknowledged write is there."""
    assert not load.failed
    with httpx.Client(base_url=fleet.url, timeout=10) as client:
        for note, text in load.written.items():
            assert client.get(f"/notes/{note}").json()["text"] == text


@at
def test_servers_come_and_go(fleet: RunningFleet) -> None:
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        said = done(fleet, "scale", "app=4")
        assert "+ app-3" in said and "+ app-4" in said
        assert servers(fleet) == ["app-1", "app-2", "app-3", "app-4"] and wanted(fleet) == 4
        load.wait_for_more()
        assert "as it was" in done(fleet, "scale", "app=4"), "nothing to do the second time"
        said = done(fleet, "scale", "app=1")
        assert "- app-2" in said and "- app-4" in said
        assert servers(fleet) == ["app-1"] and wanted(fleet) == 1
        load.wait_for_more()
        done(fleet, "scale", "app=2", "app.workers=2")
        assert servers(fleet) == ["app-1", "app-1.2", "app-2", "app-2.2"]
        load.wait_for_more()
        done(fleet, "scale", "app.workers=1")
        assert servers(fleet) == ["app-1", "app-2"]
        load.wait_for_more()
    require_nothing_failed(fleet, load)
    audit = (fleet.state.growth / "audit.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["outcome"] for line in audit] == ["done"] * 5
    document = msgspec.json.decode(Command(fleet, "scale", "--json").wait_done().encode())
    assert document["pools"] == {"app": 2} and document["running"] == ["app-1", "app-2"]


@alone
def test_the_address_changes_its_owner_and_back(fleet: RunningFleet) -> None:
    with OpenLoad(fleet, rate=150) as load, _Busy(fleet) as busy:
        load.wait_for_more()
        for stage in ("scale-out", "load-balancer", "scale-out", "separate-database"):
            command = "grow" if stage in ("scale-out", "load-balancer") and servers(fleet) == ["app"] else ""
            further = stage == "load-balancer" or command
            done(fleet, "grow" if further else "shrink", stage)
            assert fleet.status().stage == stage
            document = endpoints.read(fleet.state.placement().endpoints)
            assert (document.stage, document.cache.several) == (stage, stage != "separate-database")
            assert servers(fleet) == (["app"] if stage == "separate-database" else ["app-1", "app-2"])
            load.wait_for_more()
        done(fleet, "scale", "app.workers=3")
        assert servers(fleet) == ["app", "app.2", "app.3"]
        load.wait_for_more()
        done(fleet, "scale", "app.workers=1")
        done(fleet, "grow", "load-balancer")
        load.wait_for_more()
        done(fleet, "shrink", "separate-database")
        load.wait_for_more()
    require_nothing_failed(fleet, load)
    assert busy.wrong == []
    fleet.end()
    fleet.start()
    assert servers(fleet) == ["app"], "outgrow.toml says what ran last"


@at
def test_killed_on_the_way_it_becomes_what_outgrow_toml_says(fleet: RunningFleet) -> None:
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        counts = itertools.cycle((4, 1, 3, 2))
        for moment in (0.0, 0.3, 0.6, 1.2):
            count = next(counts)
            scaling = Command(fleet, "scale", f"app={count}")
            wait_until(lambda count=count: wanted(fleet) == count, "outgrow.toml to say it")  # type: ignore[misc]
            threading.Event().wait(moment)
            scaling.kill()
            done(fleet, "scale", f"app={count}")
            assert servers(fleet) == [f"app-{number}" for number in range(1, count + 1)]
        load.wait_for_more()
    require_nothing_failed(fleet, load)

    scaling = Command(fleet, "scale", "app=4")
    wait_until(lambda: wanted(fleet) == 4, "outgrow.toml to say it")
    fleet.kill_supervisor()
    assert scaling.wait() == 1
    fleet.stage = "load-balancer"
    fleet.start()
    assert len(servers(fleet)) == wanted(fleet), "the command has put it back, or the start has done it"
    assert fleet.healthy()


@alone
def test_growing_is_killed_interrupted_and_resumed(fleet: RunningFleet) -> None:
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        growing = Command(fleet, "grow", "load-balancer")
        assert growing.wait_for("applying", "front")
        growing.kill()
        done(fleet, "grow", "--undo")
        assert servers(fleet) == ["app"] and fleet.status().stage == "separate-database"
        load.wait_for_more()
        growing = Command(fleet, "grow", "load-balancer")
        assert growing.wait_for("applying", "front")
        growing.kill()
        done(fleet, "grow", "--resume")
        assert servers(fleet) == ["app-1", "app-2"]
        load.wait_for_more()
        shrinking = Command(fleet, "shrink", "separate-database")
        assert shrinking.wait_for("applying", "front")
        shrinking.kill()
        done(fleet, "shrink")
        assert servers(fleet) == ["app"]
        load.wait_for_more()
    require_nothing_failed(fleet, load)
    growing = Command(fleet, "grow", "load-balancer")
    assert growing.wait_for("applying", "front")
    fleet.kill_supervisor()
    growing.wait()
    fleet.start()
    assert servers(fleet) == ["app"]
    if fleet.state.growing():
        done(fleet, "grow", "--resume")
        assert servers(fleet) == ["app-1", "app-2"] and fleet.healthy()


@at
def test_the_death_of_one_server(fleet: RunningFleet) -> None:
    """Reads go to another server; a write that was under way on the dead one fails, and is not repeated."""
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        fleet.kill("app-2")
        wait_until(lambda: servers(fleet) == ["app-1", "app-2"], "the server again")
        load.wait_for_more(200)
    assert sum(load.failed.values()) <= 2, load.failed
    assert fleet.healthy()


@at
def test_a_server_that_cannot_start_changes_nothing(fleet: RunningFleet) -> None:
    code = fleet.directory / "app.py"
    whole = code.read_text()
    code.write_text("raise RuntimeError('not today')\n")
    with OpenLoad(fleet) as load:
        command = Command(fleet, "scale", "app=3")
        assert command.wait() != 0 and "not today" in command.said
        load.wait_for_more()
    assert servers(fleet) == ["app-1", "app-2"] and wanted(fleet) == 2
    assert [node.name for node in fleet.status().nodes if node.state == "failed"] == []
    code.write_text(whole)
    require_nothing_failed(fleet, load)
    done(fleet, "scale", "app=3")


@alone
def test_refused(fleet: RunningFleet) -> None:
    for arguments, told in (
        (("scale", "app=2"), "outgrow grow scale-out"),
        (("scale", "app=0"), "from 1 to 100"),
        (("scale", "app=many"), "nothing to scale"),
        (("scale", "servers=2"), "nothing to scale"),
        (("scale", "app=1", "app=1"), "said twice"),
        (("grow", "separate-database"), "already"),
        (("shrink", "single-server", "--plan"), ""),
    ):
        command = Command(fleet, *arguments)
        assert command.wait() == (2 if told else 0), command.said
        assert told in command.said
    assert servers(fleet) == ["app"]


@at
def test_connections_stay_within_what_the_database_allows(fleet: RunningFleet) -> None:
    """Room for 400 (twice 2 servers with 100 each): 6 servers have 66 each, and are not refused any."""
    with (fleet.directory / "outgrow.toml").open("a") as file:
        file.write('\n[database]\npool = 100\npooler = "off"\n')
    fleet.end()
    fleet.start()
    assert pools(fleet) == {100}
    with OpenLoad(fleet) as load:
        done(fleet, "scale", "app=6")
        assert pools(fleet) == {66}
        load.wait_for_more()
        refused = Command(fleet, "scale", "app=100", "app.workers=3")
        assert refused.wait() == 2 and "less than 2 connections each" in refused.said
        assert wanted(fleet) == 6 and pools(fleet) == {66}
        done(fleet, "scale", "app=2")
        assert pools(fleet) == {100}
    require_nothing_failed(fleet, load)


def pools(fleet: RunningFleet) -> set[int]:
    """How many connections each process may have, as it tells itself."""
    found = set()
    for name in servers(fleet):
        figures = httpx.get(f"http://{fleet.node(name).own}/metrics", headers={"accept": "text/plain"}).text
        found |= set(
            re.findall(r'^outgrow_db_pool_connections\{.*state="max"\} (\d+)', figures, re.MULTILINE)
        )
    return set(map(int, found))


LOST = """
import os, pathlib

async def _reach():
    if pathlib.Path(os.environ["OUTGROW_NODE"] + ".lost").exists():
        raise OSError("this server has lost its database")

og.health.add("reach", _reach)
"""


@at
def test_a_server_that_has_lost_its_database_gets_no_traffic(fleet: RunningFleet) -> None:
    with (fleet.directory / "app.py").open("a") as code:
        code.write(LOST)
    with (fleet.directory / "outgrow.toml").open("a") as file:
        file.write('\n[balancer.health]\nprofile = "fast"\n')
    fleet.end()
    fleet.start()
    lost = fleet.directory / "app-2.lost"
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        assert answered(fleet, "app-2") > 0
        lost.touch()
        wait_until(lambda: still(fleet, "app-2", load), "no request at the server that is out")
        lost.unlink()
        before = answered(fleet, "app-2")
        wait_until(lambda: answered(fleet, "app-2") > before + 20, "the server to be in again, by itself")
    require_nothing_failed(fleet, load)


def still(fleet: RunningFleet, name: str, load: OpenLoad) -> bool:
    """Whether a server answers nothing while others do."""
    before = answered(fleet, name)
    load.wait_for_more()
    return answered(fleet, name) == before


def answered(fleet: RunningFleet, name: str) -> int:
    """How many requests a server has answered, as it tells at its own address."""
    own = fleet.node(name).own
    figures = httpx.get(f"http://{own}/metrics", headers={"accept": "text/plain"}, timeout=10).text
    found = re.findall(r"^outgrow_http_requests_total\{.*\} (\S+)$", figures, re.MULTILINE)
    return int(sum(map(float, found)))


@pytest.mark.alone
@at
def test_a_second_equal_server_nearly_doubles_the_throughput(fleet: RunningFleet) -> None:
    """Each a twentieth of a core, so that two are seen to be twice as much on a small machine."""
    done(fleet, "scale", "app=1", "app.cpu=0.05")
    for warning in fleet.status().warnings:
        if "CPU" in warning:
            lacking(warning)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(5):  # a busy machine may spoil a round; where the second does nothing, none succeeds
        for count, measured in rates.items():
            done(fleet, "scale", f"app={count}")
            measured.append(asyncio.run(throughput(fleet)))
        if rates[2][-1] > 1.6 * rates[1][-1]:
            return
    pytest.fail(f"the second server adds too little: {rates}")


async def throughput(fleet: RunningFleet, seconds: float = 3.0) -> float:
    """Requests a second of a closed loop that keeps the servers busy."""
    load = Load(Address("127.0.0.1", fleet.port))
    try:
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            await load.many(16, concurrency=16, data=request("GET", "/notes/1"))
        return len(load.outcomes) / (time.monotonic() - began)
    finally:
        await load.close()


class _Busy:
    """Writers that never let their one connection rest. One that breaks in the middle is noted."""

    def __init__(self, fleet: RunningFleet, count: int = 2) -> None:
        self.wrong: list[str] = []
        self._fleet = fleet
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(count)]

    def __enter__(self) -> _Busy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        limits = httpx.Limits(max_connections=1)
        with httpx.Client(base_url=self._fleet.url, timeout=20, limits=limits) as client:
            while not self._stop.is_set():
                try:
                    client.post("/notes", json={"text": "a busy connection"}).raise_for_status()
                except httpx.HTTPError as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")

"""New versions come under load, good ones and broken ones; everything is killed on the way.

Load is open-loop, on kept connections and on new ones; a quarter of it writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.growing import Command
from tests.support.open_load import OpenLoad

pytestmark = pytest.mark.timeout(240)

# Whether a version is slow is not asked here: on a busy machine a good one may be.
SETTINGS = '\n[dashboard]\nenabled = false\n[deploy]\nwatch = "500ms"\nslower = 1000\n'


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningFleet]:
    """One that runs, at a stage."""
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    file.write_text(file.read_text().replace('"single-server"', f'"{request.param}"') + SETTINGS)
    made = RunningFleet(directory, request.param)
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


balanced = pytest.mark.parametrize("fleet", ["load-balancer"], indirect=True)
alone_and_balanced = pytest.mark.parametrize("fleet", ["single-server", "load-balancer"], indirect=True)


def done(fleet: RunningFleet, *arguments: str) -> str:
    return Command(fleet, *arguments).wait_done()


def servers(fleet: RunningFleet) -> list[str]:
    nodes = fleet.status().nodes
    return sorted(node.name for node in nodes if node.tier == "application" and node.state == "ready")


def write(fleet: RunningFleet, version: str, more: str = "") -> None:
    """The application's code, as this version of it."""
    code = fleet.directory / "app.py"
    whole = code.with_name("app.whole")
    if not whole.exists():
        whole.write_text(code.read_text())
    code.write_text(whole.read_text().replace('{"hello": ', f'{{"version": "{version}", "hello": ') + more)


def versions(fleet: RunningFleet) -> set[str | None]:
    """Which versions answer."""
    found = [httpx.get(f"{fleet.url}/", timeout=10).raise_for_status().json() for _ in range(12)]
    return {each.get("version") for each in found}


def require_all_there(fleet: RunningFleet, load: OpenLoad) -> None:
    """Every acknowledged write."""
    with httpx.Client(base_url=fleet.url, timeout=10) as client:
        for note, text in load.written.items():
            assert client.get(f"/notes/{note}").json()["text"] == text


def kept(fleet: RunningFleet) -> list[str]:
    return sorted(each.name for each in (fleet.directory / ".outgrow" / "releases").iterdir())


@alone_and_balanced
def test_a_new_version_and_the_one_before_again(fleet: RunningFleet) -> None:
    before = servers(fleet)
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        write(fleet, "2")
        said = done(fleet, "deploy")
        assert "release 2 runs" in said
        assert servers(fleet) == before and versions(fleet) == {"2"}
        assert fleet.status().release == 2 and kept(fleet) == ["1", "2"]
        load.wait_for_more()
        done(fleet, "deploy", "--rollback")
        assert versions(fleet) == {None} and fleet.status().release == 1
        load.wait_for_more()
    assert not load.failed
    require_all_there(fleet, load)
    refused = Command(fleet, "deploy", "--rollback")
    assert refused.wait() == 2 and "no release before" in refused.said
    audit = (fleet.state.growth / "audit.jsonl").read_bytes().splitlines()
    told = [msgspec.json.decode(line) for line in audit]
    assert [(each["move"], each["outcome"]) for each in told] == [
        ("deploy: release 2", "done"),
        ("rollback: release 1", "done"),
    ]


FAILS_ITS_CHECK = """
async def _reach():
    raise OSError("the new version cannot reach what it needs")

og.health.add("reach", _reach)
"""
ENDS = "import os\nos._exit(3)\n"


@alone_and_balanced
def test_a_version_that_is_never_good_gets_no_request(fleet: RunningFleet) -> None:
    before = servers(fleet)
    with OpenLoad(fleet) as load:
        bad = (
            (FAILS_ITS_CHECK, "/health/deep says 503"),
            ("raise RuntimeError('not today')\n", "not today"),
            (ENDS, "ended while it started"),
        )
        for more, told in bad if len(before) > 1 else bad[:1]:
            load.wait_for_more()
            write(fleet, "2", more)
            command = Command(fleet, "deploy")
            assert command.wait() == 1 and told in command.said
            assert servers(fleet) == before and versions(fleet) == {None}
            assert [node.name for node in fleet.status().nodes if node.state == "failed"] == []
        load.wait_for_more()
    assert not load.failed
    assert kept(fleet) == ["1"] and fleet.status().release == 1
    write(fleet, "3")
    done(fleet, "deploy")
    assert versions(fleet) == {"3"}


ANSWERS_500 = """
async def broken(request):
    raise RuntimeError("the new version answers nothing")

app.router.routes.insert(0, Route("/notes", broken, methods=["GET"]))
"""


@alone_and_balanced
def test_a_version_that_answers_with_errors_goes_again(fleet: RunningFleet) -> None:
    before = servers(fleet)
    file = fleet.directory / "outgrow.toml"
    file.write_text(file.read_text().replace("500ms", "4s"))  # as soon as there are enough errors it goes
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        write(fleet, "2", ANSWERS_500)
        command = Command(fleet, "deploy")
        assert command.wait() == 1 and "requests with an error" in command.said
        assert servers(fleet) == before and versions(fleet) == {None}
        assert all(each.startswith("500") for each in load.failed), load.failed
        failed = sum(load.failed.values())
        load.wait_for_more(200)
        assert sum(load.failed.values()) == failed, "none after it has gone"
    assert 0 < failed < load.done / (1 + len(before)), "the canary's share of the time, at most"
    require_all_there(fleet, load)


@balanced
def test_settings_of_the_application_and_no_others(fleet: RunningFleet) -> None:
    file = fleet.directory / "outgrow.toml"
    whole = file.read_text()
    write(fleet, "2", 'import os\nprint("colour", os.environ.get("COLOUR"), flush=True)\n')
    file.write_text(f'{whole}[application.environment]\nCOLOUR = "blue"\n')
    done(fleet, "deploy")
    assert "colour blue" in (fleet.state.logs / "app-1.log").read_text()
    done(fleet, "scale", "app=3")
    assert versions(fleet) == {"2"}, "servers that come later run the release, too"
    write(fleet, "3")
    wait_until(lambda: fleet.kill("app-3") > 0, "a server to kill")
    wait_until(lambda: servers(fleet) == ["app-1", "app-2", "app-3"], "it again")
    assert versions(fleet) == {"2"}, "what is edited concerns nothing that runs"
    file.write_text(file.read_text() + "[database]\npool = 3\n")
    refused = Command(fleet, "deploy")
    assert refused.wait() == 2 and "database.pool" in refused.said
    assert versions(fleet) == {"2"}


@balanced
def test_the_command_is_killed_on_the_way(fleet: RunningFleet) -> None:
    with OpenLoad(fleet) as load:
        load.wait_for_more()
        for number, moment in enumerate((0.0, 1.0, 3.0), 2):
            write(fleet, str(number))
            deploying = Command(fleet, "deploy")
            while kept(fleet)[-1] < str(number):
                assert deploying.process.poll() is None, deploying.said
                time.sleep(0.05)
            threading.Event().wait(moment)
            deploying.kill()
        write(fleet, "9")
        done(fleet, "deploy")
        assert versions(fleet) == {"9"} and servers(fleet) == ["app-1", "app-2"]
        assert not [each for each in kept(fleet) if not each.isdigit()]
        load.wait_for_more()
    assert not load.failed
    require_all_there(fleet, load)


@balanced
def test_the_supervisor_is_killed_on_the_way(fleet: RunningFleet) -> None:
    write(fleet, "10")
    deploying = Command(fleet, "deploy")
    wait_until(
        lambda: any(node.name == "app-1.old" for node in fleet.status().nodes), "a server in two versions"
    )
    fleet.kill_supervisor()
    assert deploying.wait() == 1
    fleet.start()
    assert servers(fleet) == ["app-1", "app-2"] and versions(fleet) == {"10"}, "`up` runs the folder"
    write(fleet, "11")
    done(fleet, "deploy")
    assert versions(fleet) == {"11"}

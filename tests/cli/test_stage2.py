"""The same new application on PostgreSQL: the fleet's own, then one that Outgrow did not start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Foreground, fleet_processes, get, post, run, wait_until
from tests.support.postgres import PostgresServer

Up = Callable[..., Foreground]


def names(directory: Path) -> list[str]:
    nodes = run("status", directory, "--json").document["nodes"]
    return [node["name"] for node in nodes if node["kind"] == "service"]


def test_a_database_of_its_own_keeps_its_data(application: Path, up: Up) -> None:
    first = up(application, "--stage", "separate-database")
    first.wait_ready()
    assert "stage 2, separate-database" in first.said and names(application) == ["postgres", "app"]
    post(f"{first.url}/notes", {"text": "still here"})
    assert run("seed", application, "--", "2").code == 0
    wait_until(lambda: len(get(f"{first.url}/notes")["notes"]) == 3, "the seeded notes")
    assert "nothing to do" in run("migrate", application).out, "at the stage that runs"
    assert first.interrupt() == 0 and not fleet_processes(application)

    second = up(application, "--stage", "2")
    second.wait_ready()
    assert [note["text"] for note in get(f"{second.url}/notes")["notes"]][-1] == "still here"
    assert run("down", application).code == 0 and second.process.wait(30) == 0
    assert not fleet_processes(application)


def test_bring_your_own(application: Path, up: Up, postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    with (application / "outgrow.toml").open("a") as file:
        file.write('\n[database]\nurl = "${OWN_DATABASE}"\n')
    assert "applied" in run("migrate", application, OWN_DATABASE=url).out, "without a fleet"
    fleet = up(application, OWN_DATABASE=url)
    fleet.wait_ready()
    note = post(f"{fleet.url}/notes", {"text": "in a database of mine"})
    [row] = postgres_server.execute("SELECT id, text FROM notes", url.rpartition("/")[2])
    assert str(row["id"]) == note["id"]
    assert names(application) == ["app"]
    assert fleet.interrupt() == 0 and not fleet_processes(application)
    password = postgres_server.password
    told = [path.read_text(errors="replace") for path in (application / ".outgrow" / "logs").iterdir()]
    assert password not in "".join([fleet.said, *told])

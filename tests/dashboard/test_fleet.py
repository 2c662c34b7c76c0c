"""The dashboard of a real fleet: what it shows moves, and what happens to nodes is seen."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from outgrow.cluster.measure import used
from outgrow.dashboard import client
from tests.cli.conftest import run as command
from tests.dashboard.conftest import Watched
from tests.support.fleets import wait_until


@pytest.fixture
def load(watched: Watched) -> Iterator[None]:
    """Somebody who keeps asking, also for what is not there."""
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=watched.url, timeout=5) as http:
            while not stop.is_set():
                http.get("/notes")
                http.get("/notes/1")
                stop.wait(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_figures_move_under_load(watched: Watched, load: None) -> None:
    wait_until(lambda: watched.snapshot()["traffic"]["rate"] > 5, "the rate of the load")
    wait_until(lambda: watched.snapshot()["routes"], "the table of routes", within_s=40)
    snapshot = watched.snapshot()
    assert snapshot["application"] == "hello" and snapshot["stage_number"] == 1 and snapshot["answers"]
    assert snapshot["health"] == {"status": "ok", "reasons": []}
    assert 0 < snapshot["traffic"]["p50"] <= snapshot["traffic"]["p99"]
    assert {"/notes", "/notes/{id}"} <= {route["route"] for route in snapshot["routes"]} | {"/notes/{id}"}
    assert any(query["label"].startswith("SELECT") for query in snapshot["queries"])
    assert snapshot["machine"]["memory_used"] > 0
    app = next(node for node in snapshot["nodes"] if node["name"] == "app")
    assert app["state"] == "ready" and app["memory"] > 10e6


def test_the_topology_is_drawn(watched: Watched) -> None:
    drawing = watched.snapshot()["drawing"]
    assert drawing["tiers"] == ["clients", "application"]
    boxes = {box["id"]: box for box in drawing["boxes"]}
    assert {"clients", "app", "app/database", "app/cache", "app/queue"} == set(boxes)
    assert boxes["app/database"]["inside"] == "app" and boxes["app/database"]["detail"] == "SQLite"
    assert [(link["source"], link["target"]) for link in drawing["links"]] == [("clients", "app")]


def test_the_stream_brings_a_snapshot_a_second(watched: Watched) -> None:
    moments = []
    with httpx.stream("GET", f"{watched.page}/api/stream", timeout=10) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        for line in answer.iter_lines():
            if line.startswith("data: "):
                moments.append(json.loads(line[6:])["at"])
            if len(moments) == 4:
                break
    assert moments == sorted(moments)
    assert 1 < moments[-1] - moments[0] < 20


def test_the_history_continues(watched: Watched) -> None:
    query = {"seconds": "20", "series": "rate,cpu,memory:app"}
    curves = httpx.get(f"{watched.page}/api/history", params=query, timeout=5).json()
    assert curves["step_s"] == 1 and set(curves["series"]) == {"rate", "cpu", "memory:app"}
    wait_until(
        lambda: len(known(watched, "cpu")) >= 5 and abs(known_until(watched) - time.time()) < 5,
        "five seconds of history",
    )
    two_hours = httpx.get(f"{watched.page}/api/history", params={"seconds": 7200}, timeout=5).json()
    assert two_hours["step_s"] == 12 and len(two_hours["series"]["cpu"]) == 600


def known(fleet: Watched, name: str) -> list[float]:
    curves = httpx.get(f"{fleet.page}/api/history", params={"seconds": 60}, timeout=5).json()
    return [value for value in curves["series"][name] if value is not None]


def known_until(fleet: Watched) -> float:
    curves = httpx.get(f"{fleet.page}/api/history", params={"seconds": 60}, timeout=5).json()
    return float(curves["since"] + len(curves["series"]["cpu"]))


def test_slow_requests_arrive_with_their_parts(watched: Watched, load: None) -> None:
    def with_query() -> bool:
        # What is read all the time is loaded ahead of its time, and no reader waits for a query any more.
        httpx.post(f"{watched.url}/notes", json={"text": "so that the next one does"}, timeout=5)
        found = watched.requests(search="get /notes 200")["requests"]
        return any(
            kind == "query" and where == "db" for each in found for kind, _, where, *_ in each["spans"]
        )

    wait_until(with_query, "a query of one of the slowest of a second")
    [found, *_] = watched.requests(search="get /notes 200", order="slowest")["requests"]
    assert found["node"] == "app" and found["method"] == "GET" and found["ms"] > 0
    assert watched.requests(search="nowhere-to-be-found")["total"] == 0


def test_logs_are_followed(watched: Watched) -> None:
    first = httpx.get(f"{watched.page}/api/logs", timeout=5).json()
    assert {"app", "dashboard"} <= set(first["nodes"])
    assert not any('"outgrow.access"' in text for _, text in first["lines"])
    httpx.get(f"{watched.url}/notes", timeout=5)

    def told() -> bool:
        query = {"cursor": json.dumps(first["cursor"]), "access": "1", "node": "app"}
        return any(
            '"/notes"' in text
            for _, text in httpx.get(f"{watched.page}/api/logs", params=query).json()["lines"]
        )

    wait_until(told, "the line of the request")


def test_status_shows_the_same_figures(watched: Watched) -> None:
    summary = client.summary(watched.page)
    assert summary is not None and summary.health.status == "ok" and summary.traffic.errors == 0
    assert client.summary("http://127.0.0.1:1") is None
    said = command("status", watched.directory)
    assert "requests/s" in said.out and watched.page in said.out
    assert command("status", watched.directory, "--json").document["now"]["health"]["status"] == "ok"


def test_it_is_small(watched: Watched) -> None:
    pid = watched.node("dashboard").pid
    assert pid is not None
    usage = used(pid)
    assert usage is not None and usage.memory < 45e6


def test_a_killed_node_is_seen_and_the_history_outlives_the_dashboard(own_fleet: Watched) -> None:
    fleet = own_fleet
    fleet.start()
    fleet.wait_seen()
    wait_until(lambda: len(known(fleet, "cpu")) >= 4, "some history")
    killed = fleet.kill("app")
    wait_until(
        lambda: any(event["kind"] == "restart" and event.get("node") == "app" for event in fleet.events()),
        "it in the events",
    )
    wait_until(
        lambda: any(
            box["id"] == "app" and box["restarts"] == 1 and box["state"] == "ready"
            for box in fleet.snapshot()["drawing"]["boxes"]
        ),
        "it back",
    )
    assert all(node["pid"] != killed for node in fleet.snapshot()["nodes"])

    before = [event["text"] for event in fleet.events()]
    fleet.kill("dashboard")
    assert httpx.get(f"{fleet.url}/health", timeout=5).status_code == 200, "nothing else suffers"
    wait_until(lambda: fleet.node("dashboard").restarts == 1 and fleet.snapshot(), "the dashboard back")
    assert [event["text"] for event in fleet.events()][: len(before)] == before
    assert len(known(fleet, "cpu")) >= 2

    fleet.end()
    fleet.start()
    fleet.wait_seen()
    texts = [event["text"] for event in fleet.events()]
    assert texts[: len(before)] == before and "epoch 2" in texts[-1]


def test_open_pages_do_not_hold_up_the_end(own_fleet: Watched) -> None:
    own_fleet.start()
    own_fleet.wait_seen()
    with httpx.stream("GET", f"{own_fleet.page}/api/stream", timeout=10) as answer:
        lines = answer.iter_lines()
        next(lines)
        began = time.monotonic()
        own_fleet.end()
        assert time.monotonic() - began < 15
        with pytest.raises((httpx.HTTPError, StopIteration)):
            while True:
                next(lines)


def test_a_taken_port_is_replaced_unless_somebody_asked_for_it(own_fleet: Watched) -> None:
    with socket.socket() as taken:
        try:
            taken.bind(
                ("127.0.0.1", own_fleet.port + 1000 if own_fleet.port <= 64535 else own_fleet.port - 1000)
            )
            taken.listen()
        except OSError:
            pass  # somebody else has it: taken all the same
        status = own_fleet.start()
        assert status.dashboard is not None
        assert not status.dashboard.endswith(f":{own_fleet.port + 1000}")
        own_fleet.wait_seen()


def test_without_a_dashboard(own_fleet: Watched) -> None:
    file = own_fleet.directory / "outgrow.toml"
    file.write_text(file.read_text() + "\n[dashboard]\nenabled = false\n")
    status = own_fleet.start()
    assert status.dashboard is None
    assert [node.name for node in status.nodes] == ["migrate", "app"]

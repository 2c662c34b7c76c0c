"""Whether a new version is good enough, what a deploy may change, what is kept of each. Starts nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from outgrow.cluster import figures, plan, releases
from outgrow.cluster.figures import Figures
from outgrow.cluster.rollout import deployed, judged
from outgrow.engines import Placement
from outgrow.errors import Misuse
from outgrow.runtime.telemetry.metrics import Registry
from outgrow.topology import parse

LIMITS = parse("[deploy]\nerrors = 0.1\nslower = 3").deploy
BOUNDS = (0.01, 0.1, 1.0)


def told(requests: int, failed: int = 0, bucket: int = 0) -> Figures:
    times = tuple(float(requests) if number == bucket else 0.0 for number in range(len(BOUNDS) + 1))
    return Figures(0, requests, failed, BOUNDS, times)


@pytest.mark.parametrize(
    ("new", "old", "whole", "wrong"),
    [
        (told(100), told(100), True, ""),
        (told(0), told(0), True, ""),
        (told(10, 2), told(100), True, ""),  # two may be anybody's
        (told(10, 3), told(100), False, "3 of 10 requests with an error"),
        (told(2, 2), told(100), False, ""),
        (told(2, 2), told(100), True, "2 of 2"),
        (told(100, 9), told(100), False, ""),
        (told(100, 29), told(100, 20), True, ""),  # the version before does it, too
        (told(100, 31), told(100, 20), True, "31 of 100"),
        (told(100, bucket=2), told(100), True, "is slow: its p95"),
        (told(5, bucket=2), told(100), True, "is slow: its median"),
        (told(4, bucket=2), told(100), True, ""),
        (told(100, bucket=2), told(100), False, ""),
        (told(100, bucket=1), told(100, bucket=1), True, ""),
    ],
)
def test_good_enough(new: Figures, old: Figures, whole: bool, wrong: str) -> None:
    found = judged(new, old, LIMITS, whole=whole)
    assert (found is None) == (not wrong) and wrong in (found or "")


def test_figures_are_read_as_they_are_told() -> None:
    registry = Registry()
    requests = registry.counter("outgrow_http_requests_total", "", "method", "route", "status")
    times = registry.histogram("outgrow_http_request_seconds", "", BOUNDS, "route")
    registry.gauge("outgrow_http_requests_in_flight", "").series().value = 4
    requests.series("GET", "/a", "200").value = 7
    requests.series("GET", "/b", "503").value = 2
    for route, took in (("/a", 0.001), ("/b", 0.5), ("/b", 5.0)):
        times.series(route).observe(took)
    _, body = registry.exposition("application/json")
    assert figures.read(body) == Figures(4, 9, 2, BOUNDS, (1, 0, 1, 1))
    assert figures.read(b"{}") == Figures()


def test_figures_since_and_together() -> None:
    before, after = told(10), told(30, 5)
    assert after.since(before) == told(20, 5)
    assert before.since(after) == before, "it has begun anew"
    assert after.since(Figures()) == after
    assert figures.together([after, Figures(), told(1, bucket=3)]).times == (30, 0, 0, 1)
    assert told(100, bucket=1).quantile(0.5) == pytest.approx(0.055)
    assert Figures().quantile(0.5) is None and told(5, bucket=3).quantile(0.9) == 1.0


def test_a_deploy_takes_what_is_the_applications() -> None:
    running = parse("stage = 4\n[application]\nservers = 5\nport = 8010")
    text = 'stage = 4\n[application]\napp = "b:c"\nservers = 2\n[application.environment]\nA = "1"\n'
    found = deployed(running, parse(f"{text}[deploy]\nwatch = 1\n[autoscale]\ncpu = 0.5"))
    assert (found.application.app, found.application.environment) == ("b:c", {"A": "1"})
    assert (found.application.count, found.application.port) == (5, 8010)
    assert found.deploy.watch == 1 and found.autoscale.on
    with pytest.raises(Misuse, match=r"application\.workers, database\.pool"):
        deployed(running, parse("stage = 4\n[application]\nworkers = 2\n[database]\npool = 3"))


def test_both_versions_of_a_server_fit_beside_each_other() -> None:
    topology = parse("stage = 4\n[application]\nworkers = 64\nmigrations = 'm'\n[balancer.pools]\nx = 2")
    old = Placement(Path("/app"), Path("/app/.outgrow"), "127.70.1.1", release=3)
    new = old._replace(release=4, slot=1)
    first = [each for each in plan.front(topology, old) if each.tier == "application"]
    second = [each for each in plan.front(topology, new) if each.tier == "application"]
    assert [each.name for each in first] == [each.name for each in second]
    assert [each.listen[0] for each in first] == [each.listen[0] for each in second]
    assert not {each.own for each in first} & {each.own for each in second}
    assert not {each.host for each in first} & {each.host for each in second}
    assert {each.directory for each in second} == {"/app/.outgrow/releases/4"}
    job = plan.migration(topology, new)
    assert job.environment["OUTGROW_MIGRATIONS"] == "/app/.outgrow/releases/4/m"
    assert plan.migration(topology, old._replace(release=0)).directory == "/app"


@pytest.fixture
def place(tmp_path: Path) -> Placement:
    """A folder with code and with what is none."""
    for name in (
        "app.py",
        "pages/a.html",
        ".venv/bin/python",
        ".outgrow/state.json",
        "pages/__pycache__/a.pyc",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "data.db").write_text("rows")
    (tmp_path / "link").symlink_to("app.py")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
    return Placement(tmp_path, tmp_path / ".outgrow", "127.70.1.1")


def test_a_release_is_the_code_alone(place: Placement) -> None:
    data = releases.data(place, parse('[database]\nfile = "data.db"'))
    (place.state / "releases" / "7.new").mkdir(parents=True)
    assert releases.make(place, data) == 1
    kept = place._replace(release=1).code
    found = sorted(str(path.relative_to(kept)) for path in kept.rglob("*"))
    assert found == ["app.py", "link", "pages", "pages/a.html"]
    assert sorted(each.name for each in place.releases.iterdir()) == ["1"], "and nothing half"
    assert releases.make(place, data) == 2


def test_a_start_keeps_the_folder_once(place: Placement) -> None:
    line = releases.current(place, ())
    assert line == (1,) and releases.current(place, line) == line
    (place.application / "app.py").write_text("another text")
    assert releases.current(place, line) == (1, 2)
    releases.tidy(place, (2,), 2)
    assert [each.name for each in place.releases.iterdir()] == ["2"]
    releases.make(place)
    releases.tidy(place, (2,), 2)
    assert len(list(place.releases.iterdir())) == 2, "a newer one is being deployed"


def test_the_line_of_releases() -> None:
    line: tuple[int, ...] = ()
    for release in range(1, 9):
        line = releases.added(line, release)
    assert line == (4, 5, 6, 7, 8)
    assert releases.added(line, 6) == (4, 5, 6)
    assert releases.added((4, 5, 6), 9) == (4, 5, 6, 9)

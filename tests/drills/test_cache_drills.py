"""`outgrow drill` on the example at stage 6: its shared cache dies, hangs, is slow, or full, under load.

It has two nodes: of those that are killed one dies, everything else both suffer.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow import endpoints
from outgrow.engines.redis import cache as redis_cache
from tests.drills.test_drills_command import broken, drilled, outgrow
from tests.support.fleets import RunningFleet
from tests.support.ports import free_port
from tests.support.redis import program
from tests.support.source import ROOT

pytestmark = pytest.mark.timeout(240)
TOPOLOGY = """
[database]
replicas = 0

[dashboard]
enabled = false
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Conduit with two servers and a few articles."""
    program()
    directory = tmp_path_factory.mktemp("drills") / "conduit"
    ignored = shutil.ignore_patterns(".outgrow", "__pycache__")
    shutil.copytree(ROOT / "examples" / "conduit", directory, ignore=ignored)
    port = free_port()
    text = (directory / "stages" / "06.toml").read_text().replace("port = 8000", f"port = {port}")
    text = text.replace("[cache]", "[cache]\nmemory_mb = 16\nnodes = 2")
    (directory / "outgrow.toml").write_text(text + TOPOLOGY)
    made = RunningFleet(directory, "cache")
    made.port = port
    try:
        made.start()
        assert outgrow("seed", directory, "--", "--users", "100", "--articles", "500").returncode == 0
        yield made
    finally:
        made.end()
        assert made.pids() == []


def keys(fleet: RunningFleet) -> int:
    """How many the node of the shared cache has that has fewer."""
    place = fleet.state.placement()
    urls = endpoints.read(place.endpoints).cache.urls
    assert len(urls) == 2
    return min(redis_cache.figures(url, place).keys for url in urls)


@pytest.mark.parametrize("drill", ["cache-restart", "cache-gone", "cache-slow", "cache-full"])
def test_nobody_notices(fleet: RunningFleet, drill: str, tmp_path: Path) -> None:
    document, _ = drilled(fleet, drill, tmp_path / "report.txt", "--events", "1")
    assert broken(document) == []
    told = [each["kind"] for each in document["happenings"] if each["node"] == redis_cache.NAME]
    assert told[0] == "fault"
    says = {each["promise"]: each for each in document["findings"]}
    assert says["Every acknowledged write is there."]["figures"]["acknowledged"] > 20
    assert says["Every user sees their own writes."]["figures"]["read_back"] > 20
    assert keys(fleet) > 20, "the load is served by the cache again"


def test_without_a_shared_cache_they_are_refused(fleet: RunningFleet) -> None:
    file = fleet.directory / "outgrow.toml"
    text = file.read_text()
    file.write_text(text.replace("[cache]", '[cache]\nengine = "memory"'))
    try:
        done = outgrow("drill", "cache-gone", fleet.directory, "--yes")
    finally:
        file.write_text(text)
    assert done.returncode == 2 and "outgrow grow cache" in done.stderr

"""One fleet with its dashboard for this folder: looking changes nothing. A test that kills has its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fleets import RunningFleet, make_application, wait_until


class Watched(RunningFleet):
    """A fleet whose dashboard answers."""

    @property
    def page(self) -> str:
        """Where the dashboard is."""
        url = self.status().dashboard
        assert url is not None
        return url

    def snapshot(self) -> Any:
        """What the dashboard knows now; None in its first moments."""
        try:
            return httpx.get(f"{self.page}/api/snapshot", timeout=5).json()
        except httpx.TransportError:
            return None

    def wait_seen(self) -> None:
        """Until it has looked at the application twice."""
        wait_until(lambda: (self.snapshot() or {}).get("latest", {}).get("rate") is not None, "figures")

    def requests(self, **query: str) -> Any:
        """Slow and failed requests."""
        return httpx.get(f"{self.page}/api/requests", params=query, timeout=5).json()

    def events(self) -> list[dict[str, Any]]:
        """What has happened."""
        found: list[dict[str, Any]] = httpx.get(f"{self.page}/api/events", timeout=5).json()
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A fleet at stage 1 that has been looked at."""
    fleet = Watched(make_application(tmp_path_factory.mktemp("watched") / "hello"))
    try:
        fleet.start()
        fleet.wait_seen()
        yield fleet
    finally:
        fleet.end()
        assert fleet.pids() == [], "a process was left behind"


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[Watched]:
    """A fleet of this test alone, not started yet."""
    fleet = Watched(make_application(tmp_path / "hello"))
    yield fleet
    fleet.end()
    assert fleet.pids() == [], "a process was left behind"

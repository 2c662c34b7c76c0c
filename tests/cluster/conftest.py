"""Fleets, ended after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fleets import RunningFleet, make_application

MakeFleet = Callable[..., RunningFleet]


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[MakeFleet]:
    """Makes a fleet of a new application; after the test nothing of it runs."""
    fleets: list[RunningFleet] = []

    def make(name: str = "hello", stage: str = "single-server") -> RunningFleet:
        fleets.append(RunningFleet(make_application(tmp_path / name), stage))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.end()
        assert fleet.pids() == [], "a process was left behind"

"""kill -9 of the supervisor, the application and PostgreSQL under load: no acknowledged write is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.fleets import RunningFleet, make_application, wait_until

WRITERS = 4
ROUNDS = 2
WRITES_BETWEEN_KILLS = 25


class Writers:
    """Clients that write and go on writing whatever happens; they remember what was acknowledged."""

    def __init__(self, fleet: RunningFleet) -> None:
        self.acknowledged: dict[str, str] = {}
        self._fleet = fleet
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, writer: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            text = f"writer {writer} says {number}"
            try:
                self.acknowledged[self._fleet.write(text)] = text
            except httpx.HTTPError:
                self._stop.wait(0.05)  # refused or cut off: nothing was promised

    def wait_for_more(self) -> None:
        """Until some more writes have been acknowledged."""
        wanted = len(self.acknowledged) + WRITES_BETWEEN_KILLS
        wait_until(lambda: len(self.acknowledged) >= wanted, "writes that are acknowledged again")


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningFleet]:
    """One that runs."""
    made = RunningFleet(make_application(tmp_path / "hello"), request.param)
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def kill(fleet: RunningFleet, victim: str) -> None:
    """kill -9, and for the supervisor what a person or an init system does then: start it again."""
    if victim == "supervisor":
        fleet.kill_supervisor()
        fleet.start()
        return
    restarts = fleet.node(victim).restarts
    fleet.kill(victim)
    wait_until(
        lambda: fleet.node(victim).restarts > restarts and fleet.node(victim).state == "ready",
        f"{victim} to be ready again",
    )


@pytest.mark.parametrize(
    ("fleet", "victim"),
    [
        ("single-server", "app"),
        ("single-server", "supervisor"),
        ("separate-database", "app"),
        ("separate-database", "supervisor"),
        ("separate-database", "postgres"),
    ],
    indirect=["fleet"],
)
def test_no_acknowledged_write_is_lost(fleet: RunningFleet, victim: str) -> None:
    with Writers(fleet) as writers:
        for _ in range(ROUNDS):
            writers.wait_for_more()
            kill(fleet, victim)
        writers.wait_for_more()
    assert fleet.healthy()
    with httpx.Client(base_url=fleet.url, timeout=10) as client:
        for note, text in writers.acknowledged.items():
            answer = client.get(f"/notes/{note}")
            assert answer.status_code == 200, f"{text!r} was acknowledged and is lost"
            assert answer.json()["text"] == text

        def counted() -> bool:
            """Every message of an acknowledged write has been worked on as well."""
            return all(client.get(f"/notes/{note}").json()["words"] == 4 for note in writers.acknowledged)

        wait_until(counted, "every task of an acknowledged write")

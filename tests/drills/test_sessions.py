"""Sessions in the database go where the database goes: nobody is logged out by a growing application."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.cluster.test_redis import APPLICATION
from tests.support.fleets import RunningFleet, make_application, wait_until


def test_a_growing_application_takes_its_sessions_along(tmp_path: Path) -> None:
    """A visitor who never stops is counted on through both moves, and every visit counts once."""
    application = make_application(tmp_path / "hello")
    (application / "app.py").write_text(APPLICATION)
    topology = application / "outgrow.toml"
    text = topology.read_text().replace('seed = "app:seed"', "")
    topology.write_text(f'{text}\n[sessions]\nengine = "database"\n[dashboard]\nenabled = false\n')
    fleet = RunningFleet(application)
    visits: list[int] = []
    stop = threading.Event()

    def visit() -> None:
        with httpx.Client(base_url=fleet.url, timeout=20) as visitor:
            while not stop.is_set():
                visits.append(visitor.get("/visit").raise_for_status().json())

    visiting = threading.Thread(target=visit)
    try:
        fleet.start()
        visiting.start()
        for command in ("grow", "separate-database"), ("shrink",):
            before = len(visits)
            wait_until(lambda before=before: len(visits) > before + 20, "visits")  # type: ignore[misc]
            subprocess.run(
                [sys.executable, "-m", "outgrow.cli", *command],
                cwd=application,
                check=True,
                capture_output=True,
                timeout=120,
            )
        before = len(visits)
        wait_until(lambda: len(visits) > before + 20 or not visiting.is_alive(), "visits")
    finally:
        stop.set()
        if visiting.ident is not None:
            visiting.join()
        fleet.end()
    assert visits == list(range(1, len(visits) + 1))
    assert fleet.pids() == []

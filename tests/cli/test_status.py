"""How `outgrow status` shows a fleet. That it asks the running one is in test_up.py."""

from __future__ import annotations

import time

import click
import pytest
from msgspec.structs import replace

from outgrow.cli import status
from outgrow.cluster import NodeStatus, Status
from outgrow.cluster.status import Autoscaling
from outgrow.growth.unfinished import Unfinished

NOW = time.time()


@pytest.fixture(autouse=True)
def _the_clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the tests before have taken: what is shown are differences to now."""
    monkeypatch.setattr(time, "time", lambda: NOW)


DONE = NodeStatus("migrate", "job", "done", None, None, 0, NOW)
APP = NodeStatus("app", "service", "ready", 42, "127.0.0.1:8000", 2, NOW - 7300, 0.25, 57 << 20)
FAILED = NodeStatus("postgres", "service", "failed", None, None, 8, NOW, text="died too often")


CUT_OFF = Unfinished(
    "sqlite-to-postgres",
    "single-server",
    "separate-database",
    NOW - 3 * 3600,
    "copy",
    "failed",
    NOW - 2 * 3600,
    "the disk is full",
    worked_on_by=None,
    moved=False,
)


def shown(*nodes: NodeStatus, dashboard: str | None = None, growth: Unfinished | None = None) -> str:
    whole = Status("hello", "separate-database", 3, "http://127.0.0.1:8000", NOW - 3700, 41, nodes, dashboard)
    return click.unstyle(status.text(whole, growth=growth))


def test_what_runs() -> None:
    lines = shown(DONE, APP).splitlines()
    assert lines[0] == "hello runs at stage 2, separate-database, for 1 h"
    assert lines[1] == "http://127.0.0.1:8000   supervisor 41, epoch 3"
    assert lines[3].split() == ["node", "state", "since", "restarts", "cpu", "memory", "pid", "address"]
    assert lines[4].split() == ["app", "ready", "2", "h", "2", "25%", "57", "MB", "42", "127.0.0.1:8000"]
    assert len(lines) == 5, "a job that is done is no news"


def test_where_the_dashboard_is() -> None:
    assert "http://127.0.0.1:9000   dashboard" in shown(APP, dashboard="http://127.0.0.1:9000")


def test_a_failed_node_says_why() -> None:
    assert shown(APP, FAILED).splitlines()[-1] == "postgres died too often"


def test_a_warning_comes_last() -> None:
    whole = Status("hello", "load-balancer", 3, "http://127.0.0.1:8000", NOW, 41, (APP,), warnings=("so",))
    assert click.unstyle(status.text(whole)).splitlines()[-1] == "warning: so"


def test_a_growth_that_was_cut_off_says_what_to_do() -> None:
    head, *lines = shown(APP, growth=CUT_OFF).splitlines()[3:8]
    assert head.startswith("not finished: the growth from single-server to separate-database, begun 3 h")
    assert head.endswith("; nobody works on it")
    assert lines == [
        "  step copy: failed 2 h ago",
        "  the disk is full",
        "  `outgrow grow --resume` finishes it",
        "  `outgrow grow --undo` takes it back",
    ]


def test_what_has_moved_can_only_be_finished() -> None:
    said = shown(APP, growth=replace(CUT_OFF, moved=True, step="settle", event="applying"))
    assert "`outgrow grow --resume` finishes it" in said and "--undo" not in said


def test_a_growth_that_goes_on_says_who_works_on_it() -> None:
    said = shown(APP, growth=replace(CUT_OFF, worked_on_by="me@here, process 7: growing", failure=""))
    assert "growing from single-server to separate-database, begun 3 h ago" in said
    assert "me@here, process 7: growing" in said and "--resume" not in said


def test_what_the_autoscaler_sees_and_has_done() -> None:
    autoscale = Autoscaling(
        servers=3,
        minimum=2,
        maximum=8,
        targets={"cpu": 0.6, "in_flight": 20.0, "p95": 0.25},
        now={"cpu": 0.58, "in_flight": None, "p95": 0.0312},
        reason="CPU 58% of a target of 60%",
        last="2 -> 3, CPU 84% of a target of 60%",
        last_at=NOW - 120,
    )
    whole = Status("hello", "load-balancer", 3, "http://h", NOW, 41, (APP,), release=7, autoscale=autoscale)
    lines = click.unstyle(status.text(whole)).splitlines()
    assert lines[1].endswith("epoch 3, release 7")
    assert lines[2:5] == [
        "autoscale   3 of 2 to 8 servers   cpu 58% of 60%   in flight - of 20   p95 31.2 ms of 250 ms",
        "CPU 58% of a target of 60%",
        "2 -> 3, CPU 84% of a target of 60%, 2 min ago",
    ]

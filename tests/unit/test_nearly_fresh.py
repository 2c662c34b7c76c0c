"""Which replicas are asked before a read goes to the primary, because none was as far as its session."""

from __future__ import annotations

import math
from typing import Any

import pytest

from outgrow.runtime.database import replicas
from outgrow.runtime.database.replicas import View
from outgrow.runtime.database.routing import Seen, Told
from outgrow.runtime.events import Events
from tests.unit.test_routing_stateful import Server, Watching

NOW = 1000.0


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> View:
    """The primary had written 100 two seconds ago and 200 one second ago."""
    monkeypatch.setattr(replicas, "monotonic", lambda: NOW)
    made = View("0", 0, math.inf, Events())
    watches: Any = {name: Watching(Server(name, standby=name != "a")) for name in "abc"}
    made._watches = watches
    made.seen = {name: Seen(name) for name in "abc"}
    made.note("a", Told(False, 1, 100, 1, 1), NOW - 2)
    made.note("a", Told(False, 1, 200, 1, 1), NOW - 1)
    return made


def test_who_was_late_by_less_than_it_is_ago(view: View) -> None:
    view.note("b", Told(True, 1, 100, 2, 1), NOW - 0.5)  # it lacks what was written half a second before
    view.note("c", Told(True, 1, 50, 3, 1), NOW - 0.1)  # almost two seconds late
    assert view.nearly(200) == ["b"]
    assert view.nearly(100) == ["b", "c"]


def test_nobody_who_was_just_asked(view: View) -> None:
    view.note("b", Told(True, 1, 200, 2, 1), NOW - 0.01)
    assert view.nearly(201) == []


def test_what_was_written_just_now_only_who_is_not_late(view: View) -> None:
    """Of that the primary has not told yet."""
    view.note("b", Told(True, 1, 200, 2, 1), NOW - 0.1)
    view.note("c", Told(True, 1, 100, 3, 1), NOW - 0.1)
    assert view.nearly(300) == ["b"]

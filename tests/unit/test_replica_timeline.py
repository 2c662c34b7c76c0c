"""On which timeline a replica is when its primary is gone, from which it knew that."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

from outgrow.runtime.database.replicas import View
from outgrow.runtime.database.routing import Seen, Told
from outgrow.runtime.events import Events
from tests.unit.test_routing_stateful import Server, Watching

OLD, RUN, OTHER = 2, 3, 4


def view() -> View:
    """Of a database that has changed its primary before: "a" leads timeline 2, "b" receives from it."""
    made = View("0", 0, math.inf, Events())
    watches: Any = {name: Watching(Server(name, standby=name == "b")) for name in "ab"}
    made._watches = watches
    made.seen = {name: Seen(name) for name in "ab"}
    made.note("a", Told(False, 2, 150, OLD, 1, 100, {1: 100}), monotonic())
    made.note("b", Told(True, 2, 150, RUN, 1), monotonic())
    return made


def replicas(made: View) -> list[str]:
    return [seen.name for seen in made.standing.replicas]


def test_it_serves_on_when_the_primary_from_which_it_received_hangs() -> None:
    """Then it tells of its last restart point's timeline, which may be an earlier one."""
    made = view()
    made.fail("a", "it does not answer", lost=True)
    made.note("b", Told(True, 1, 150, RUN, 1), monotonic())
    assert replicas(made) == ["b"]


def test_it_serves_on_after_it_did_not_answer_itself() -> None:
    made = view()
    made.fail("b", "it does not answer", lost=True)
    assert replicas(made) == []
    made.note("b", Told(True, 1, 150, RUN, 1), monotonic())
    assert replicas(made) == ["b"]


def test_once_it_has_begun_anew_it_counts_what_it_tells() -> None:
    made = view()
    made.note("b", Told(True, 1, 150, OTHER, 1), monotonic())
    assert replicas(made) == []

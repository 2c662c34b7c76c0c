"""What a session has seen at a primary that died, nobody knows how far: lost or not, replication decides."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

import pytest

from outgrow.endpoints import Database, Node, Shard
from outgrow.errors import LostWrite
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark, Position
from outgrow.runtime.database.replication import Replication
from outgrow.runtime.database.routing import Choice, Seen, Told, level_of
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope
from tests.unit.test_routing_stateful import Server, Watching

OLD, NEW, UNKNOWN = 2, 3, 99
FORK = 200


def failed_over(replication: Any) -> Replication:
    """Replica "b" has taken over from "a", which is gone."""
    shards = (Shard("0", tuple(Node(name, f"postgresql://h/{name}") for name in "ab")),)
    servers: Any = {name: Server(name, standby=name == "b") for name in "ab"}
    made = Replication(
        Database("postgres", shards, replication=replication, max_lag_s=math.inf), servers, Events()
    )
    made.view._watches = {name: Watching(server) for name, server in servers.items()}  # type: ignore[misc]
    made.view.seen = {name: Seen(name) for name in "ab"}
    made.view.note("a", Told(False, 1, 150, OLD, 1), monotonic())
    made.view.note("b", Told(True, 1, 150, NEW, 1), monotonic())
    made.view.fail("a", "it is gone", lost=True)
    made.view.note("b", Told(False, 2, FORK + 10, NEW, 1, FORK, {1: FORK}), monotonic())
    return made


def chosen(replication: Replication, run: int, within_s: float = 0.0) -> tuple[Choice | None, Bookmark]:
    """Where a session may read that has seen this run, from 100 on."""
    bookmark = Bookmark()
    bookmark.raise_to("0", Position(1, 100))
    bookmark.saw("0", run)
    reset = request.current.set(Scope(bookmark))
    try:
        return replication.choose(level_of("session"), monotonic() + within_s), bookmark
    finally:
        request.current.reset(reset)


@pytest.mark.parametrize("replication", ["semi-sync", "sync"])
def test_what_the_old_primary_has_shown_was_confirmed(replication: str) -> None:
    choice, bookmark = chosen(failed_over(replication), OLD)
    assert choice is not None and choice.node is not None and choice.node.name == "b"
    assert bookmark.positions["0"] == Position(2, FORK) and bookmark.seen == {}


def test_without_confirmation_it_may_be_lost() -> None:
    with pytest.raises(LostWrite):
        chosen(failed_over("async"), OLD)


def test_a_replica_may_have_shown_what_was_not_confirmed_yet() -> None:
    """Or a server that this process has never known."""
    with pytest.raises(LostWrite):
        chosen(failed_over("semi-sync"), UNKNOWN)


def test_what_a_primary_has_shown_that_was_stopped_as_planned_is_at_the_next_one() -> None:
    """Without replicas that confirm, too."""
    replication = failed_over("async")
    replication.view.handed_over("a", 2, FORK + 10)
    choice, bookmark = chosen(replication, OLD)
    assert choice is not None and choice.node is not None and choice.node.name == "b"
    assert bookmark.positions["0"] == Position(2, FORK + 10) and bookmark.seen == {}


def test_a_session_waits_for_the_timeline_of_which_the_word_tells() -> None:
    replication = failed_over("async")
    replication.view.handed_over("a", 3, FORK + 20)
    assert chosen(replication, OLD, within_s=60)[0] is None
    with pytest.raises(LostWrite):
        chosen(replication, OLD)


def test_the_word_is_of_the_old_primary_alone() -> None:
    """A replica may have followed the next one already; and a later failover may have lost what it had."""
    replication = failed_over("async")
    replication.view.handed_over("b", 2, FORK + 10)
    replication.view.handed_over("c", 2, FORK + 10)
    with pytest.raises(LostWrite):
        chosen(replication, OLD)
    replication.view.handed_over("a", 2, FORK + 10)
    replication.view.note("b", Told(False, 3, FORK + 9, NEW, 1, None, {1: FORK, 2: FORK + 5}), monotonic())
    with pytest.raises(LostWrite):
        chosen(replication, OLD)

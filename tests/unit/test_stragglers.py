"""Which replicas copy the database anew, by what they write and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outgrow.cluster.stragglers import Stragglers, troubles
from outgrow.engines.etcd.client import Entry
from outgrow.engines.patroni.view import Member, View

ASKS = (
    "FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment 0000000300000000000000D9 "
)
GONE = ASKS + "has already been removed\n"
PRIMARY = Member("a", "primary", "running")


def due(logs: Path, replica: Member, *texts: str, **more: Any) -> list[list[str]]:
    """What each look says, after it has written each of these."""
    log = logs / "b.log"
    log.write_text(GONE * 5)  # of an earlier day
    stragglers = Stragglers(("a", "b"), logs)
    view = View(Entry("a", 1), {"a": PRIMARY, "b": replica})._replace(**more)
    found = []
    for text in texts:
        with log.open("a") as file:
            file.write(text)
        found.append(stragglers.due(view))
    return found


@pytest.mark.parametrize("state", ["running", "starting"])
def test_who_asks_twice_for_what_is_gone_is_rebuilt_once(tmp_path: Path, state: str) -> None:
    texts = ("started\n", GONE, "something else\n", GONE, GONE)
    assert due(tmp_path, Member("b", "replica", state), *texts) == [[], [], [], ["b"], []]


@pytest.mark.parametrize(
    ("replica", "more"),
    [
        (Member("b", "replica", "running", streaming=True), {}),
        (Member("b", "primary", "running"), {}),
        (Member("b", "replica", "start failed"), {}),
        (Member("b", "replica", "running"), {"leader": None}),
        (Member("b", "replica", "running"), {"paused": True}),
    ],
    ids=["it follows", "it is the primary", "it does not start", "there is no primary", "paused"],
)
def test_nobody_else_is(tmp_path: Path, replica: Member, more: dict[str, Any]) -> None:
    assert due(tmp_path, replica, GONE, GONE, GONE, **more) == [[], [], []]


def test_a_log_that_is_begun_anew_is_read_whole(tmp_path: Path) -> None:
    stragglers = Stragglers(("b",), tmp_path)
    view = View(Entry("a", 1), {"a": PRIMARY, "b": Member("b", "replica", "running")})
    found = []
    for text in ("x" * 1000, GONE, GONE * 2):
        (tmp_path / "b.log").write_text(text)
        found.append(stragglers.due(view))
    assert found == [[], [], ["b"]]


def test_a_replica_that_does_not_start_is_for_a_person_to_decide() -> None:
    (text,) = troubles(View(members={"a": PRIMARY, "b": Member("b", "replica", "start failed")}))
    assert "b does not start" in text and "outgrow rebuild b" in text

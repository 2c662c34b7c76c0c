"""The phases of a failover, from what was seen and when."""

from __future__ import annotations

import json

from outgrow.cluster.failovers import PHASES, Failovers
from outgrow.engines.etcd.client import Entry
from outgrow.engines.patroni.view import View, view


def seen(leader: str | None, **members: tuple[str, int]) -> View:
    """`members` are name=(role, timeline); all of them serve."""
    entries = {
        f"members/{name}": Entry(
            json.dumps(
                {"role": role, "state": "running", "timeline": timeline, "replication_state": "streaming"}
            ),
            1,
        )
        for name, (role, timeline) in members.items()
    }
    return view(entries | ({"leader": Entry(leader, 5)} if leader else {}))


DAY = 1_800_000_000.0
"""What the clock says, whatever is seen meanwhile."""

WHOLE = seen("a", a=("primary", 1), b=("replica", 1), c=("replica", 1))


def test_a_host_is_lost_and_another_takes_over() -> None:
    failovers = Failovers(lambda: DAY)
    failovers.seen(0, WHOLE)
    failovers.lost(10.0, "a", "killed by SIGKILL")
    assert failovers.under_way
    failovers.seen(10.1, WHOLE)
    failovers.seen(10.2, seen(None, b=("replica", 1), c=("replica", 1)))
    failovers.seen(10.3, seen("b", b=("replica", 1), c=("replica", 1)))
    failovers.seen(10.5, seen("b", b=("primary", 2), c=("replica", 1)))
    failovers.seen(11.5, seen("b", b=("primary", 2), c=("replica", 2)))
    assert not failovers.under_way and "recovery" not in failovers.kept[-1].phases
    failovers.seen(15.5, seen("b", a=("replica", 2), b=("primary", 2), c=("replica", 2)))
    (one,) = failovers.kept
    assert (one.began, one.before, one.after, one.reason) == (DAY, "a", "b", "killed by SIGKILL")
    assert dict(zip(PHASES, (0.2, 0.1, 0.2, 1.0, 4.0), strict=True)) == one.phases
    assert one.writes_s is not None and abs(one.writes_s - 0.5) < 1e-9


def test_a_lease_that_goes_unseen() -> None:
    failovers = Failovers()
    failovers.seen(0, WHOLE)
    failovers.seen(1, seen("b", a=("replica", 1), b=("primary", 2), c=("replica", 2)))
    failovers.seen(2, seen("b", a=("replica", 2), b=("primary", 2), c=("replica", 2)))
    (one,) = failovers.kept
    assert one.reason == "its lease is gone" and set(one.phases) == set(PHASES)


def test_a_replica_that_ends_is_no_failover() -> None:
    failovers = Failovers()
    failovers.seen(0, WHOLE)
    failovers.lost(1, "b", "killed")
    failovers.seen(2, seen("a", a=("primary", 1), c=("replica", 1)))
    assert failovers.kept == ()


def test_a_primary_that_is_there_again_at_once() -> None:
    failovers = Failovers()
    failovers.seen(0, WHOLE)
    failovers.lost(1, "a", "killed")
    failovers.seen(2, WHOLE)
    assert failovers.under_way
    failovers.seen(9, WHOLE)
    assert failovers.kept == ()


def test_one_failover_after_the_other() -> None:
    failovers = Failovers()
    failovers.seen(0, WHOLE)
    failovers.lost(1, "a", "killed")
    failovers.seen(2, seen("b", b=("primary", 2), c=("replica", 2)))
    failovers.lost(3, "b", "killed")
    failovers.seen(4, seen("c", c=("primary", 3)))
    assert [(each.before, each.after) for each in failovers.kept] == [("a", "b"), ("b", "c")]


def test_a_clock_that_is_set_back_meanwhile_changes_no_duration() -> None:
    days = iter([DAY, DAY - 3600])
    failovers = Failovers(lambda: next(days))
    failovers.seen(0, WHOLE)
    failovers.lost(1, "a", "killed")
    failovers.seen(2, seen("b", b=("primary", 2), c=("replica", 2)))
    failovers.lost(3, "b", "killed")
    failovers.seen(4, seen("c", c=("primary", 3)))
    assert [each.began for each in failovers.kept] == [DAY, DAY - 3600]
    assert all(0 <= seconds <= 1 for each in failovers.kept for seconds in each.phases.values())


def test_what_cannot_be_read_is_left_out() -> None:
    found = view({"members/a": Entry("{", 1), "config": Entry("[]", 1), "sync": Entry("null", 1)})
    assert found.primary is None and not found.synchronous and not found.paused
    assert not found.members["a"].serves


def test_lag_and_synchronous_replicas() -> None:
    entries = {
        "leader": Entry("a", 1),
        "config": Entry('{"pause": true}', 1),
        "sync": Entry('{"leader": "a", "sync_standby": "b,c"}', 1),
        "members/a": Entry('{"role": "primary", "state": "running", "xlog_location": 500}', 1),
        "members/b": Entry(
            '{"role": "replica", "state": "running", "replication_state": "streaming", "replay_lsn": 200}', 1
        ),
    }
    found = view(entries)
    assert found.paused and found.synchronous == {"b", "c"}
    assert found.primary is not None and found.lag(found.members["b"]) == 300

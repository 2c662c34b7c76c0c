"""Which workload comes after which, and when a dead one is started again: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgrow.errors import FleetError
from outgrow.supervisor.backoff import Backoff
from outgrow.supervisor.order import in_order, to_stop
from outgrow.workload import Restart, Workload


def workload(name: str, *after: str) -> Workload:
    return Workload(name, ("true",), after=after)


def names(workloads: list[Workload]) -> list[str]:
    return [each.name for each in workloads]


def test_as_given_unless_something_has_to_come_first() -> None:
    given_ = [workload("app", "migrate"), workload("extra"), workload("migrate", "db"), workload("db")]
    assert names(in_order(given_)) == ["db", "migrate", "app", "extra"]


@pytest.mark.parametrize(
    ("workloads", "says"),
    [
        ([workload("a", "b"), workload("b", "c"), workload("c", "a")], "a -> b -> c -> a"),
        ([workload("a", "a")], "a -> a"),
        ([workload("a", "nobody")], "a waits for nobody, which does not exist"),
        ([workload("a"), workload("a")], "same name"),
    ],
)
def test_what_has_no_order(workloads: list[Workload], says: str) -> None:
    with pytest.raises(FleetError, match=says):
        in_order(workloads)


def test_what_nothing_needs_stops_together() -> None:
    ordered = in_order(
        [workload("db"), workload("cache"), workload("one", "db", "cache"), workload("two", "db")]
    )
    assert [names(group) for group in to_stop(ordered)] == [["two", "one"], ["cache", "db"]]
    assert to_stop([]) == []


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=4), max_size=10))
def test_each_stops_once_and_after_all_that_need_it(after: list[set[int]]) -> None:
    made = [workload(str(i), *(str(j) for j in sorted(each) if j < i)) for i, each in enumerate(after)]
    groups = to_stop(in_order(made))
    turn = {each.name: number for number, group in enumerate(groups) for each in group}
    assert len(turn) == sum(map(len, groups)) == len(made)
    assert all(turn[each.name] < turn[name] for each in made for name in each.after)


def test_the_wait_doubles_up_to_a_bound_then_it_is_given_up() -> None:
    backoff = Backoff(Restart(first_delay_s=0.1, delay_max_s=0.5, limit=5, window_s=60))
    assert [backoff.after_death(moment) for moment in range(5)] == [0.1, 0.2, 0.4, 0.5, None]


def test_deaths_long_ago_do_not_count() -> None:
    backoff = Backoff(Restart(first_delay_s=0.1, limit=3, window_s=10))
    waits = []
    for moment in (0, 1, 20, 21, 29.9, 100):
        backoff.ready()
        waits.append(backoff.after_death(moment))
    assert waits == [0.1, 0.2, 0.1, 0.2, None, 0.1]


def test_deaths_without_being_ready_in_between_count_however_long_ago() -> None:
    backoff = Backoff(Restart(first_delay_s=0.1, limit=3, window_s=10))
    assert [backoff.after_death(moment) for moment in (0, 100, 200)] == [0.1, 0.2, None]
    assert backoff.verdict() == "died 3 times without being ready in between"
    backoff.ready()
    assert backoff.after_death(300) == 0.1


def test_one_death_may_be_too_many() -> None:
    assert Backoff(Restart(limit=1)).after_death(0) is None

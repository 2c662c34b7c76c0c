"""From counters to rates and quantiles, over restarts."""

from __future__ import annotations

import msgspec
import pytest

from outgrow.advisor import measures
from outgrow.advisor.measures import Distribution, Tally
from outgrow.runtime.scope import Scope
from outgrow.runtime.telemetry.prometheus import Metrics


def exposed(metrics: Metrics) -> measures.Totals:
    content_type, body = metrics.exposition("application/json")
    assert content_type == "application/json"
    return measures.totals(measures.read(body))


def answer(metrics: Metrics, seconds: float, status: int = 200, route: str = "/a") -> None:
    metrics._http.started()
    metrics._http.finished(Scope(), "GET", route, status, seconds, route, None)


def test_what_is_new_between_two_looks() -> None:
    metrics = Metrics()
    answer(metrics, 0.3)
    before = exposed(metrics)
    for i in range(98):
        answer(metrics, 0.003, route=f"/{i % 5}")
    answer(metrics, 0.2, status=503)
    answer(metrics, 0.2, status=404)
    metrics._database.query("db", "SELECT a", 0.002, None)
    metrics._database.query("db", "SELECT b", 0.002, "Broken")
    metrics._database.transaction("db", "commit", 0.01)
    metrics._database.transaction("db", "rollback", 0.01)
    metrics._cache.read("a", "hit")
    metrics._cache.read("b", "miss")
    metrics._queue.staged("index")
    metrics._queue.finished("index", "done", 0.1, 1)
    tally = measures.since(exposed(metrics), before, 2.0)
    assert tally.rate == 50 and tally.errors == 0.5
    assert tally.statuses == {"2": 98, "5": 1, "4": 1}
    assert tally.requests.quantile(0.5) == pytest.approx(0.00375, abs=0.0013)
    assert tally.requests.quantile(0.99) == pytest.approx(0.175, abs=0.076)
    assert (tally.queries.count, tally.query_errors, tally.writes) == (2, 1, 1)
    assert tally.hit_share == 0.5 and (tally.staged, tally.tasks) == (1, {"done": 1})


def test_another_process_counts_from_nothing() -> None:
    old, new = Metrics(), Metrics()
    for _ in range(10):
        answer(old, 0.01)
    answer(new, 0.01)
    before, now = exposed(old), exposed(new)
    now.started += 5
    assert measures.since(now, before, 1.0).rate == 1


def test_a_counter_that_fell_counts_from_nothing() -> None:
    before = Distribution((1.0,), [5, 5], 9.0)
    assert Distribution((1.0,), [2, 6], 3.0).since(before).count == 8
    assert Distribution((1.0,), [7, 6], 12.0).since(before).counts == [2, 1]


def test_quantiles() -> None:
    bounds = (0.001, 0.01, 0.1)
    assert Distribution(bounds, [0, 0, 0, 0]).quantile(0.5) is None
    assert Distribution(bounds, [10, 0, 0, 0]).quantile(0.5) == 0.0005
    assert Distribution(bounds, [0, 0, 0, 3]).quantile(0.5) == 0.1, "beyond the last bound nothing is known"
    assert Distribution(bounds, [5, 5, 0, 0]).quantile(1.0) == pytest.approx(0.01)


def test_processes_side_by_side_and_one_after_the_other() -> None:
    one = Tally(seconds=1.0, requests=Distribution((1.0,), [10, 0], 1.0), statuses={"5": 1}, staged=1)
    assert one.plus(one).rate == 20 and one.plus(one).errors == 2
    assert one.then(one).rate == 10 and one.then(one).seconds == 2
    assert one.plus(Tally()).requests.count == 10 and Tally().plus(one).staged == 1


def test_what_is_no_figures() -> None:
    for body in (b"", b"hello", b"[]", b'{"a": 1}'):
        with pytest.raises(msgspec.DecodeError):
            measures.read(body)
    assert measures.totals(measures.read(b"{}")).requests.count == 0

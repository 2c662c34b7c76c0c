"""Reads of the caches of several processes, as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.advisor import caches, measures
from outgrow.advisor.caches import OUTCOMES
from outgrow.advisor.measures import FOUND
from outgrow.runtime.telemetry.prometheus import Metrics


def figures(metrics: Metrics) -> measures.Figures:
    return measures.read(metrics.exposition("application/json")[1])


def test_processes_are_summed_by_prefix_and_the_most_read_comes_first() -> None:
    one, other = Metrics(), Metrics()
    for outcome in ("hit", "hit", "shared", "miss"):
        one._cache.read("article", outcome)
    for outcome in ("waited", "old", "stale", "session"):
        other._cache.read("article", outcome)
    other._cache.read("user", "miss")
    one._cache.loaded("article", 0.01, True)
    other._cache.loaded("article", 0.03, False)
    found = [figures(one), figures(other)]
    article, user = caches.prefixes(found)
    assert article.prefix == "article" and article.reads == 8 and article.hit_rate == 5 / 8
    counts = {"hit": 2, "shared": 1, "waited": 1, "old": 1, "miss": 1, "stale": 1, "session": 1}
    assert article.outcomes == counts and tuple(article.outcomes) == OUTCOMES
    assert article.loads == 2 and article.load_seconds == pytest.approx(0.02)
    assert (user.prefix, user.reads, user.hit_rate, user.loads, user.load_seconds) == ("user", 1, 0, 0, None)
    whole = caches.whole(found)
    assert (whole.reads, whole.hit_rate, whole.loads) == (9, 5 / 9, 2)


def test_without_a_read_nothing_is_known() -> None:
    for processes in ([], [figures(Metrics())]):
        assert caches.prefixes(processes) == []
        assert (caches.whole(processes).reads, caches.whole(processes).hit_rate) == (0, None)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(OUTCOMES))), max_size=3))
def test_no_read_is_lost_or_counted_twice(reads: list[list[tuple[str, str]]]) -> None:
    processes = [Metrics() for _ in reads]
    for metrics, told in zip(processes, reads, strict=True):
        for prefix, outcome in told:
            metrics._cache.read(prefix, outcome)
    known = [figures(each) for each in processes]
    everything = [each for told in reads for each in told]
    whole, parts = caches.whole(known), caches.prefixes(known)
    assert whole.reads == sum(each.reads for each in parts) == len(everything)
    assert [each.reads for each in parts] == sorted((each.reads for each in parts), reverse=True)
    if everything:
        assert whole.hit_rate == sum(outcome in FOUND for _, outcome in everything) / len(everything)

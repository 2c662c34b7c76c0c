"""The caches as the page shows them: the last minute, of all processes together."""

from __future__ import annotations

import msgspec
import pytest

from outgrow.advisor import measures
from outgrow.advisor.keys import Told
from outgrow.advisor.measures import Distribution, Tally
from outgrow.dashboard.cached import caches
from outgrow.dashboard.gather import _traffic_series
from outgrow.dashboard.tables import Minute
from outgrow.engines.redis.cache import Figures as Server
from outgrow.runtime.telemetry.prometheus import Metrics


def figures(metrics: Metrics) -> measures.Figures:
    return measures.read(metrics.exposition("application/json")[1])


def process() -> Metrics:
    made = Metrics()
    made.gauge("outgrow_cache_entries", "", (), lambda: {(): 7})
    made.gauge("outgrow_cache_bytes", "", (), lambda: {(): 700})
    return made


def test_what_is_new_in_the_last_minute_counts() -> None:
    one, other = process(), process()
    one._cache.read("old", "miss")
    before = [figures(one), figures(other)]
    for outcome in ("hit", "shared", "shared", "miss", "session"):
        one._cache.read("article", outcome)
    one._cache.loaded("article", 0.02, True)
    other._cache.loaded("article", 0.04, False)
    other._cache.read("article", "hit")
    other._cache.read("user", "old")
    minutes = [Minute(figures(each), past, 2.0) for each, past in zip((one, other), before, strict=True)]
    keys = [[Told("article:1", 3.0, 1.0, True)], []]
    found = caches(minutes, keys, Server(1000, 2000, 3, 4))
    assert found is not None
    article, user = found.prefixes
    assert (article.prefix, article.rate) == ("article", 3.0)
    assert article.hit_rate == pytest.approx(4 / 6)
    assert (article.shared, article.sessions, article.loads) == (1.0, 0.5, 1.0)
    assert article.load_ms == pytest.approx(30)
    assert (user.prefix, user.hit_rate, user.load_ms) == ("user", 1.0, None)
    assert found.rate == 3.5 and found.hit_rate == pytest.approx(5 / 7)
    assert (found.entries, found.bytes, found.server_bytes, found.server_bytes_max) == (14, 1400, 1000, 2000)
    assert [key.key for key in found.keys] == ["article:1"] and found.keys[0].kept == 1
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_an_application_without_a_cache_has_no_such_part() -> None:
    nothing = Minute(figures(process()), figures(process()), 1.0)
    assert caches([], [], None) is caches([nothing], [[]], None) is None


def test_the_history_knows_the_share_of_a_request_that_is_the_database() -> None:
    tally = Tally(
        seconds=1.0,
        requests=Distribution((1.0,), [2.0, 0.0], 0.4),
        queries=Distribution((1.0,), [6.0, 0.0], 0.3),
    )
    assert _traffic_series(tally)["database_time"] == pytest.approx(0.75)
    assert _traffic_series(Tally())["database_time"] is None

"""Metrics: the text is valid whatever the labels hold, and each event moves its figures."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.advisor import measures
from outgrow.runtime.events import Event, Events
from outgrow.runtime.scope import Scope
from outgrow.runtime.telemetry.metrics import LABEL_LENGTH_MAX, OPENMETRICS, SERIES_MAX, TEXT, Registry
from outgrow.runtime.telemetry.prometheus import Metrics
from tests.support.exposition import Family, parse


def scrape(metrics: Metrics | Registry, *, openmetrics: bool = False) -> dict[str, Family]:
    accept = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5" if openmetrics else "*/*"
    content_type, body = metrics.exposition(accept)
    assert content_type == (OPENMETRICS if openmetrics else TEXT)
    return parse(body.decode(), openmetrics=openmetrics)


def figure(metrics: Metrics, name: str, **labels: str) -> float:
    """One sample's value. A histogram's count is asked for by its suffix."""
    family = next(
        family
        for family in scrape(metrics).values()
        if name.startswith(family.name) and name in _names(family)
    )
    return family.samples.get((name, tuple(labels.items())), 0.0)


def _names(family: Family) -> set[str]:
    return {name for name, _ in family.samples}


def listening() -> tuple[Metrics, Events]:
    metrics, events = Metrics(), Events()
    metrics.subscribe(events)
    return metrics, events


def finish(events: Events, *, method: str = "GET", route: str = "/", status: int = 200, **more: Any) -> None:
    events.request_started()
    events.request_finished(
        Scope(), method, route, status, more.get("seconds", 0.004), more.get("path", "/"), more.get("error")
    )


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_text_is_valid_when_nothing_has_happened(openmetrics: bool) -> None:
    assert scrape(Metrics(), openmetrics=openmetrics)


def test_every_event_is_heard() -> None:
    _, events = listening()
    catalogue = [event for event in vars(events).values() if isinstance(event, Event)]
    assert len(catalogue) > 10
    assert [event.name for event in catalogue if not event.sinks] == []


def test_requests() -> None:
    metrics, events = listening()
    for _ in range(3):
        finish(events, route="/articles/{slug}", seconds=0.004)
    finish(events, method="POST", route="/articles", status=500, error="ValueError", seconds=20.0)
    events.request_started()
    total = "outgrow_http_requests_total"
    assert figure(metrics, total, method="GET", route="/articles/{slug}", status="200") == 3
    assert figure(metrics, total, method="POST", route="/articles", status="500") == 1
    assert figure(metrics, "outgrow_http_exceptions_total", route="/articles", error="ValueError") == 1
    assert figure(metrics, "outgrow_http_requests_in_flight") == 1
    seconds = "outgrow_http_request_seconds"
    assert figure(metrics, f"{seconds}_bucket", route="/articles/{slug}", le="0.0025") == 0
    assert figure(metrics, f"{seconds}_bucket", route="/articles/{slug}", le="0.005") == 3
    assert figure(metrics, f"{seconds}_bucket", route="/articles", le="10") == 0
    assert figure(metrics, f"{seconds}_bucket", route="/articles", le="+Inf") == 1
    assert figure(metrics, f"{seconds}_sum", route="/articles/{slug}") == pytest.approx(0.012)


def test_an_observation_on_a_bound_is_inside() -> None:
    metrics, events = listening()
    finish(events, seconds=0.01)
    assert figure(metrics, "outgrow_http_request_seconds_bucket", route="/", le="0.01") == 1


def test_database() -> None:
    metrics, events = listening()
    events.query_finished("db", "SELECT articles", 0.0003, None)
    events.query_finished("db", "SELECT articles", 0.0003, "StatementTimeout")
    events.transaction_finished("db", "commit", 0.002)
    events.connection_waited("db", 0.1)
    for _ in range(3):
        events.connection_opened("db")
    events.connection_closed("db")
    labels = {"node": "db", "label": "SELECT articles"}
    assert figure(metrics, "outgrow_db_query_seconds_count", **labels) == 2
    assert figure(metrics, "outgrow_db_query_errors_total", **labels, error="StatementTimeout") == 1
    assert figure(metrics, "outgrow_db_transaction_seconds_count", node="db", outcome="commit") == 1
    assert figure(metrics, "outgrow_db_connection_wait_seconds_sum", node="db") == pytest.approx(0.1)
    assert figure(metrics, "outgrow_db_connections", node="db") == 2
    assert figure(metrics, "outgrow_db_connections_opened_total", node="db") == 3


def test_cache_and_queue() -> None:
    metrics, events = listening()
    for outcome in ("hit", "hit", "miss"):
        events.cache_read("article", outcome)
    events.cache_loaded("article", 0.01, True)
    events.cache_loaded("article", 0.01, False)
    events.cache_invalidated(("a", "b"))
    events.message_staged("thumbnails")
    events.message_finished("thumbnails", "retry", 0.2, 1)
    assert figure(metrics, "outgrow_cache_reads_total", prefix="article", outcome="hit") == 2
    assert figure(metrics, "outgrow_cache_load_seconds_count", prefix="article", stored="no") == 1
    assert figure(metrics, "outgrow_cache_invalidations_total") == 2
    assert figure(metrics, "outgrow_queue_messages_staged_total", topic="thumbnails") == 1
    assert figure(metrics, "outgrow_queue_message_seconds_count", task="thumbnails", outcome="retry") == 1


def test_gauges_that_are_asked() -> None:
    metrics = Metrics()
    used: dict[tuple[str, ...], float] = {("db",): 3.0}
    metrics.gauge("outgrow_db_pool_used", "Connections in use.", ("node",), lambda: used)
    assert figure(metrics, "outgrow_db_pool_used", node="db") == 3
    used.clear()
    assert figure_is_absent(metrics, "outgrow_db_pool_used")


def figure_is_absent(metrics: Metrics, name: str) -> bool:
    return scrape(metrics)[name].samples == {}


def test_the_process() -> None:
    metrics = Metrics()
    with open(os.devnull) as _:
        assert figure(metrics, "process_open_fds") == len(os.listdir("/proc/self/fd")) - 1
    assert 1 < figure(metrics, "process_resident_memory_bytes") / 2**20 < 4096
    assert figure(metrics, "process_virtual_memory_bytes") > figure(metrics, "process_resident_memory_bytes")
    assert figure(metrics, "process_cpu_seconds_total") == pytest.approx(time.process_time(), abs=0.5)
    assert 0 < time.time() - figure(metrics, "process_start_time_seconds") < 3600
    assert figure(metrics, "process_threads") >= 1
    assert figure(metrics, "process_max_fds") > 0


# --- What a caller or a careless key can do ------------------------------------------------------


@given(st.lists(st.tuples(st.text(), st.text(), st.integers(100, 599)), max_size=20), st.booleans())
def test_no_label_breaks_the_text(requests: list[tuple[str, str, int]], openmetrics: bool) -> None:
    metrics, events = listening()
    for method, route, status in requests:
        finish(events, method=method, route=route, status=status)
        events.cache_read(route, method)
    requests_seen = scrape(metrics, openmetrics=openmetrics)
    name = "outgrow_http_requests" + ("" if openmetrics else "_total")
    assert sum(requests_seen[name].samples.values()) == len(requests)


def test_labels_come_back_as_they_were() -> None:
    metrics, events = listening()
    route = 'a\\b"c\nd{e="f"} g,'
    finish(events, route=route)
    assert figure(metrics, "outgrow_http_requests_total", method="GET", route=route, status="200") == 1
    finish(events, route="\udcff")
    finish(events, route="x" * 5000)
    routes = {dict(labels)["route"] for _, labels in scrape(metrics)["outgrow_http_requests_total"].samples}
    assert {"?", "x" * LABEL_LENGTH_MAX} < routes


def test_unknown_methods_share_one_series() -> None:
    metrics, events = listening()
    for number in range(50):
        finish(events, method=f"X{number}")
    assert figure(metrics, "outgrow_http_requests_total", method="OTHER", route="/", status="200") == 50


def test_a_flood_of_labels_is_bounded() -> None:
    metrics, events = listening()
    for number in range(SERIES_MAX + 500):
        finish(events, route=f"/{number}")
        events.cache_read(f"key-{number}", "miss")
        events.query_finished("db", f"SELECT {number}", 0.001, None)
    families = scrape(metrics)
    for name in ("outgrow_http_requests_total", "outgrow_cache_reads_total"):
        assert len(families[name].samples) == SERIES_MAX + 1
        assert sum(families[name].samples.values()) == SERIES_MAX + 500
    assert figure(metrics, "outgrow_cache_reads_total", prefix="other", outcome="other") == 500


def test_a_name_is_given_once() -> None:
    registry = Registry()
    registry.counter("a_total", "A.")
    with pytest.raises(ValueError, match="exists"):
        registry.gauge("a_total", "A.")
    with pytest.raises(ValueError, match="labels"):
        registry.counter("b_total", "B.", "one").series("1", "2")


def test_a_gauge_that_says_yes_is_a_number_to_whoever_reads_it() -> None:
    metrics = Metrics()
    metrics.gauge("outgrow_test_reading", "", (), lambda: {(): True})
    told = measures.read(metrics.exposition("application/json")[1])
    assert measures.single(told, "outgrow_test_reading") == 1

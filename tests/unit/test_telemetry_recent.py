"""Slow and failed requests are kept with their parts; a reader gets each of them once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from outgrow import endpoints
from outgrow.runtime import scope as current
from outgrow.runtime import telemetry
from outgrow.runtime.asgi import Middleware
from outgrow.runtime.bookmark import Signer
from outgrow.runtime.events import Events
from outgrow.runtime.health import Health
from outgrow.runtime.scope import Scope
from outgrow.runtime.telemetry import recent
from outgrow.runtime.telemetry.recent import Answer, Recent
from outgrow.runtime.telemetry.spans import SPANS_MAX
from tests.support.asgi import call


def finish(kept: Recent, seconds: float, *, status: int = 200, error: str | None = None) -> None:
    kept.request_finished(Scope(), "GET", "/articles", status, seconds, "/articles", error)


def read(kept: Recent, before: Answer | None = None) -> Answer:
    query = f"began={before.began!r}&after={before.last}" if before is not None else ""
    return msgspec.json.decode(kept.answer(query.encode()), type=Answer)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Recent:
    """A ring whose window ends at once: what is slowest is decided at each look."""
    monkeypatch.setattr(recent, "WINDOW_S", 0.0)
    return Recent()


def test_each_reason() -> None:
    ring = Recent()
    finish(ring, 0.001, status=503)
    finish(ring, 0.001, error="ValueError")
    finish(ring, recent.SLOW_S)
    finish(ring, 0.001, status=404)
    finish(ring, 0.001, status=499, error="CancelledError")
    ring._window_ends = 0.0
    reasons = [(each.reason, each.status) for each in read(ring).requests]
    assert reasons == [
        *(("failed", 503), ("failed", 200), ("slow", 200)),
        *(("slowest", 404), ("slowest", 499)),
    ]


def test_of_many_in_a_second_the_slowest_are_kept() -> None:
    ring = Recent()
    for milliseconds in (5, 1, 9, 2, 8, 3, 7, 4, 6, 10):
        finish(ring, milliseconds / 1000)
    ring._window_ends = 0.0
    assert sorted(each.ms for each in read(ring).requests) == [7, 8, 9, 10]
    finish(ring, 0.001)
    ring._window_ends = 0.0
    assert len(read(ring).requests) == 5, "the next second begins anew"


def test_a_reader_gets_each_once_and_everything_of_a_new_process(kept: Recent) -> None:
    finish(kept, 0.1, status=500)
    first = read(kept)
    assert [each.id for each in first.requests] == [1]
    assert read(kept, first).requests == []
    finish(kept, 0.2, status=500)
    assert [each.ms for each in read(kept, first).requests] == [200]
    another = Recent()
    finish(another, 0.3, status=500)
    assert [each.ms for each in read(another, first).requests] == [300]


@pytest.mark.parametrize("query", ["after=x", "began=1&after=-1", "%ff", "after=" + "9" * 500, "&&=&"])
def test_a_query_that_makes_no_sense_gets_everything(kept: Recent, query: str) -> None:
    finish(kept, 0.1, status=500)
    assert len(msgspec.json.decode(kept.answer(query.encode()))["requests"]) == 1


def test_the_ring_is_bounded(kept: Recent) -> None:
    for _ in range(recent.KEPT_MAX * 3):
        finish(kept, 0.1, status=500)
    answer = read(kept)
    assert len(answer.requests) == recent.KEPT_MAX
    assert answer.requests[-1].id == answer.last == recent.KEPT_MAX * 3


def served(events: Events, sinks: telemetry.Telemetry, metrics: Any = "local") -> Middleware:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/articles/{slug}"
        events.connection_waited("db", 0.002)
        events.connection_waited("db", 0.000001)
        events.query_finished("db", "SELECT articles", 0.01, None)
        events.query_finished("db", "INSERT tags", 0.02, "UniqueViolation")
        events.transaction_finished("db", "rollback", 0.03)
        events.cache_loaded("article", 0.04, True)
        if scope["path"] == "/many":
            for _ in range(SPANS_MAX * 2):
                events.query_finished("db", "SELECT users", 0.001, None)
        raise ValueError("broken")

    return Middleware(
        app,
        signer=Signer({1: b"a key of at least 16"}),
        events=events,
        health=Health(),
        telemetry=endpoints.Telemetry(metrics=metrics),
        exposition=sinks.exposition,
        recent=sinks.recent,
    )


def attached(metrics: Any = "local") -> Middleware:
    events = Events()
    settings = endpoints.Telemetry(metrics=metrics, access_log=False)
    return served(events, telemetry.attach(events, settings), metrics)


def test_a_failed_request_is_told_with_its_parts() -> None:
    app = attached()
    call(app, "/articles/how", query_string=b"secret=1")
    answer = msgspec.json.decode(call(app, "/metrics/requests").body, type=Answer)
    [found] = answer.requests
    assert (found.method, found.route, found.path) == ("GET", "/articles/{slug}", "/articles/how")
    assert (found.status, found.error, found.reason) == (500, "ValueError", "failed")
    assert len(found.trace_id) == 32
    assert [(span.kind, span.name, span.us, span.error) for span in found.spans] == [
        ("wait", "connection", 2000, None),
        ("query", "SELECT articles", 10000, None),
        ("query", "INSERT tags", 20000, "UniqueViolation"),
        ("transaction", "rollback", 30000, "rollback"),
        ("load", "article", 40000, None),
    ]
    assert all(span.after_us >= 0 for span in found.spans)


def test_a_loop_over_queries_does_not_fill_the_memory() -> None:
    app = attached()
    call(app, "/many")
    [found] = msgspec.json.decode(call(app, "/metrics/requests").body, type=Answer).requests
    assert len(found.spans) == SPANS_MAX


def test_who_may_see_the_metrics_may_see_the_requests() -> None:
    app = attached()
    assert call(app, "/metrics/requests", client=("203.0.113.9", 1)).status == 404
    assert call(app, "/metrics/requests", headers=[(b"host", b"evil.example")]).status == 404
    assert call(app, "/metrics/requests", method="POST").status == 405
    assert call(attached("public"), "/metrics/requests", client=("203.0.113.9", 1)).status == 200
    assert call(attached("off"), "/metrics/requests").status == 500, "it is the application's path then"


def test_an_attempt_at_a_message_that_failed_is_kept() -> None:
    events = Events()
    sinks = telemetry.attach(events, endpoints.Telemetry(access_log=False))
    events.message_finished("outside", "dead", 0.1, 1)
    token = current.current.set(Scope(trace_id="a" * 32))
    events.message_finished("index", "done", 9.0, 1)
    events.message_finished("index", "retry", 0.1, 2)
    current.current.reset(token)
    [found] = msgspec.json.decode(sinks.recent(), type=Answer).requests
    assert (found.method, found.route, found.path, found.error) == (
        "TASK",
        "index",
        "index, attempt 2",
        "retry",
    )


def test_figures_as_json_are_those_of_the_text() -> None:
    app = attached()
    call(app, "/articles/how")
    accept = [(b"host", b"localhost"), (b"accept", b"application/json")]
    figures = msgspec.json.decode(call(app, "/metrics", headers=accept).body)
    assert figures["outgrow_http_requests_total"]["series"] == [[["GET", "/articles/{slug}", "500"], [1]]]
    family = figures["outgrow_http_request_seconds"]
    [[labels, values]] = family["series"]
    assert labels == ["/articles/{slug}"]
    assert len(values) == len(family["bounds"]) + 2 and sum(values[:-1]) == 1

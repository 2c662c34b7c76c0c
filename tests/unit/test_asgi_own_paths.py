"""/health, /health/deep and /metrics: what they say, and to whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from outgrow import endpoints
from outgrow.runtime.asgi import Middleware, is_local
from outgrow.runtime.bookmark import Signer
from outgrow.runtime.events import Events
from outgrow.runtime.health import Health
from tests.support.asgi import Answer, call, connection

SECRET = "postgresql://db.internal refused"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"the application"})


async def refused() -> str | None:
    raise OSError(SECRET)


async def in_order() -> str | None:
    return "12 GiB free"


def middleware(health: Health | None = None, metrics: Any = "local") -> Middleware:
    return Middleware(
        application,
        signer=Signer({1: b"a key of at least 16"}),
        events=Events(),
        health=health or Health(),
        telemetry=endpoints.Telemetry(metrics=metrics),
        exposition=lambda accept: (f"text/plain; accept={accept}", b"figures\n"),
    )


def test_shallow_health_says_that_the_process_answers() -> None:
    app = middleware()
    for client in (("127.0.0.1", 1), ("203.0.113.9", 1), None):
        answer = call(app, "/health", client=client)
        assert (answer.status, msgspec.json.decode(answer.body)) == (200, {"status": "ok"})
        assert answer.values(b"cache-control") == [b"no-store"]
    head = call(app, "/health", method="HEAD")
    assert (head.status, head.body, head.values(b"content-length")) == (200, b"", [b"15"])
    assert call(app, "/health", method="POST").status == 405


def test_a_process_that_stops_is_out_of_service() -> None:
    health = Health()
    health.stopping = True
    app = middleware(health)
    assert call(app, "/health").status == 503
    assert call(app, "/health/deep").status == 503


def test_other_paths_are_the_applications() -> None:
    for path in ("/", "/health/", "/healthy", "/metrics/x", "/Health"):
        assert call(middleware(), path).status == 418


def test_own_paths_behind_a_root_path() -> None:
    assert call(middleware(), "/api/health", root_path="/api").status == 200
    assert call(middleware(), "/api/x", root_path="/api").status == 418


@pytest.mark.parametrize(("critical", "status"), [(True, 503), (False, 200)])
def test_deep_health_gives_reasons_and_timings_on_this_machine(critical: bool, status: int) -> None:
    health = Health()
    health.add("database", refused, critical=critical)
    health.add("disk", in_order)
    answer = call(middleware(health), "/health/deep")
    document = msgspec.json.decode(answer.body)
    assert answer.status == status
    assert document["status"] == ("failing" if critical else "degraded")
    assert document["seconds"] >= 0
    database, disk = document["checks"]
    assert database["reason"] == f"OSError: {SECRET}"
    assert (database["ok"], disk["ok"], disk["reason"]) == (False, True, "12 GiB free")


def test_a_stranger_learns_the_status_and_nothing_else() -> None:
    health = Health()
    health.add("database", refused)
    app = middleware(health)
    answer = call(app, "/health/deep", client=("203.0.113.9", 1))
    assert (answer.status, msgspec.json.decode(answer.body)) == (503, {"status": "failing"})
    forwarded = [(b"host", b"127.0.0.1"), (b"x-forwarded-for", b"127.0.0.1")]
    assert SECRET.encode() not in call(app, "/health/deep", headers=forwarded).body


def test_metrics_are_for_this_machine() -> None:
    app = middleware()
    answer = call(app, "/metrics", headers=[(b"host", b"localhost:8000"), (b"accept", b"text/plain")])
    assert (answer.status, answer.body) == (200, b"figures\n")
    assert answer.values(b"content-type") == [b"text/plain; accept=text/plain"]
    assert call(app, "/metrics", client=("203.0.113.9", 1)).status == 404


def test_metrics_can_be_public_or_off() -> None:
    assert call(middleware(metrics="public"), "/metrics", client=("203.0.113.9", 1)).status == 200
    off: Answer = call(middleware(metrics="off"), "/metrics")
    assert (off.status, off.body) == (418, b"the application")


@pytest.mark.parametrize(
    ("client", "headers", "local"),
    [
        (("127.0.0.1", 1), [], True),
        (("127.3.2.1", 1), [(b"host", b"127.3.2.1:8000")], True),
        (("::1", 1), [(b"host", b"[::1]:8000")], True),
        (("::ffff:127.0.0.1", 1), [(b"host", b"LOCALHOST")], True),
        (("::ffff:203.0.113.9", 1), [], False),
        (("10.0.0.1", 1), [], False),
        (("127.0.0.1.evil.example", 1), [], False),
        (None, [], False),
        (("", 0), [], False),
        (("127.0.0.1", 1), [(b"host", b"rebound.example")], False),
        (("127.0.0.1", 1), [(b"host", b"127.0.0.1.evil.example")], False),
        (("127.0.0.1", 1), [(b"forwarded", b"for=10.0.0.1")], False),
        (("127.0.0.1", 1), [(b"x-forwarded-proto", b"https")], False),
        (("127.0.0.1", 1), [(b"x-real-ip", b"10.0.0.1")], False),
        (("127.0.0.1", 1), [(b"via", b"1.1 edge")], False),
    ],
)
def test_who_counts_as_local(client: Any, headers: list[tuple[bytes, bytes]], local: bool) -> None:
    assert is_local(connection("/metrics", client=client, headers=headers)) is local

"""Traces, sent to a collector that this test runs: what arrives is decoded with OpenTelemetry's protobuf."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.proto")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from outgrow import endpoints
from outgrow.runtime import scope as current
from outgrow.runtime import telemetry
from outgrow.runtime.asgi import Middleware
from outgrow.runtime.bookmark import Bookmark, Position, Signer
from outgrow.runtime.events import Events
from outgrow.runtime.health import Health
from outgrow.runtime.scope import Scope, Span
from outgrow.runtime.telemetry.otlp import traces_url
from tests.support.asgi import connection, request

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """An OTLP/HTTP endpoint on a free port."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.headers["content-type"] == "application/x-protobuf"
                collector.paths.add(self.path)
                collector.received.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> dict[str, ProtoSpan]:
        return {
            span.name: span
            for message in self.received
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    def services(self) -> set[str]:
        return {
            attribute.value.string_value
            for message in self.received
            for resource in message.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def attributes(span: ProtoSpan) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, str(attribute.value.WhichOneof("value")))
        for attribute in span.attributes
    }


def application(events: Events) -> Any:
    """Two queries in each request, the second of which fails."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/articles/{slug}"
        events.query_finished("db", "SELECT articles", 0.01, None)
        events.query_finished("db", "INSERT tags", 0.01, "UniqueViolation")
        if scope["path"] == "/broken":
            raise ValueError("broken")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


def serve(collector: Collector, *scopes: dict[str, Any], sample: float = 0.0) -> None:
    """Run these requests through the middleware with traces on, and send what they left."""
    settings = endpoints.Telemetry(otlp_endpoint=collector.url, trace_sample=sample, access_log=False)
    events = Events()
    sinks = telemetry.attach(events, settings, application="conduit")
    app = Middleware(
        application(events),
        signer=Signer({1: b"a key of at least 16"}),
        events=events,
        health=Health(),
        telemetry=settings,
    )

    async def run() -> None:
        for scope in scopes:
            await request(app, scope)

    asyncio.run(run())
    sinks.close()


def test_a_recorded_request_arrives_as_a_root_and_its_parts(collector: Collector) -> None:
    before = time.time_ns()
    header = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
    serve(collector, connection("/articles/how", headers=[header]))
    spans = collector.spans()
    assert set(spans) == {"GET /articles/{slug}", "SELECT articles", "INSERT tags"}
    assert collector.paths == {"/v1/traces"}
    assert collector.services() == {"conduit"}
    root, select, insert = (
        spans[name] for name in ("GET /articles/{slug}", "SELECT articles", "INSERT tags")
    )
    assert root.trace_id.hex() == select.trace_id.hex() == TRACE
    assert root.parent_span_id.hex() == PARENT
    assert select.parent_span_id == insert.parent_span_id == root.span_id
    assert len({root.span_id, select.span_id, insert.span_id}) == 3
    assert root.kind == ProtoSpan.SPAN_KIND_SERVER
    assert attributes(root) == {
        "http.request.method": "GET",
        "http.route": "/articles/{slug}",
        "url.path": "/articles/how",
        "http.response.status_code": 200,
    }
    assert attributes(select) == {"db.query.summary": "SELECT articles", "outgrow.node": "db"}
    assert attributes(insert)["error.type"] == "UniqueViolation"
    assert select.end_time_unix_nano - select.start_time_unix_nano == pytest.approx(10_000_000, abs=1_000_000)
    assert before - 10**9 < root.start_time_unix_nano <= root.end_time_unix_nano <= time.time_ns()
    assert (root.status.code, insert.status.code) == (Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR)


def test_what_is_not_sampled_is_not_sent_but_errors_always_are(collector: Collector) -> None:
    serve(collector, connection("/fine"), connection("/broken"))
    spans = collector.spans()
    assert set(spans) == {"GET /articles/{slug}", "SELECT articles", "INSERT tags"}, "its parts say why"
    root = spans["GET /articles/{slug}"]
    assert attributes(root)["http.response.status_code"] == 500
    assert attributes(root)["error.type"] == "ValueError"
    assert root.status.code == Status.STATUS_CODE_ERROR
    assert root.parent_span_id == b""


def test_everything_is_sampled_when_asked_for(collector: Collector) -> None:
    serve(collector, connection("/fine"), sample=1.0)
    assert len(collector.spans()) == 3


def test_queued_work_is_a_part_of_the_trace_that_asked_for_it(collector: Collector) -> None:
    events = Events()
    sinks = telemetry.attach(events, endpoints.Telemetry(otlp_endpoint=collector.url, access_log=False))
    recorded = telemetry.continued({"traceparent": f"00-{TRACE}-{PARENT}-01"})
    recorded.spans.append(Span("query", "SELECT articles", "db", time.perf_counter(), 0.001))
    fine = telemetry.continued({"traceparent": f"00-{TRACE}-{PARENT}-00"})
    for scope, task, outcome in (
        (recorded, "index", "done"),
        (fine, "quiet", "done"),
        (fine, "late", "retry"),
    ):
        token = current.current.set(scope)
        events.message_finished(task, outcome, 0.5, 1)
        current.current.reset(token)
    events.message_finished("outside", "done", 0.5, 1)
    sinks.close()
    spans = collector.spans()
    assert set(spans) == {"task index", "SELECT articles", "task late"}
    assert spans["task index"].trace_id.hex() == TRACE
    assert spans["task index"].parent_span_id.hex() == PARENT
    assert spans["task index"].kind == ProtoSpan.SPAN_KIND_CONSUMER
    assert spans["SELECT articles"].parent_span_id == spans["task index"].span_id
    assert attributes(spans["task late"]) == {
        "outgrow.task": "late",
        "outgrow.outcome": "retry",
        "outgrow.attempt": 1,
    }


def test_a_collector_that_is_away_holds_nothing_up() -> None:
    gone = Collector()
    gone.close()
    started = time.monotonic()
    serve(gone, connection("/fine"), sample=1.0)
    assert time.monotonic() - started < 10


def test_addresses() -> None:
    assert traces_url("http://h:4318") == traces_url("http://h:4318/") == "http://h:4318/v1/traces"
    assert traces_url("http://h:4318/v1/traces") == "http://h:4318/v1/traces"


def test_a_missing_extra_is_named() -> None:
    """In a process of its own, in which OpenTelemetry cannot be imported."""
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from outgrow import endpoints; from outgrow.errors import Misuse\n"
        "from outgrow.runtime.events import Events; from outgrow.runtime.telemetry import attach\n"
        "try: attach(Events(), endpoints.Telemetry(otlp_endpoint='http://h'))\n"
        "except Misuse as error: print(error.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "pip install 'outgrow[otlp]'"


# --- Calls to other services ---------------------------------------------------------------------


def test_outgoing_headers_carry_trace_and_bookmark() -> None:
    signer = Signer({1: b"a key of at least 16"})
    assert telemetry.outgoing_headers(signer) == {}
    bookmark = Bookmark()
    bookmark.raise_to("main", Position(1, 7))
    scope = Scope(bookmark, trace_id=TRACE, span_id=PARENT, sampled=True)
    scope.local = {"tracestate": "vendor=1"}
    token = current.current.set(scope)
    try:
        headers = telemetry.outgoing_headers(signer)
        assert "Outgrow-Bookmark" not in telemetry.outgoing_headers()
    finally:
        current.current.reset(token)
    assert headers["traceparent"] == f"00-{TRACE}-{PARENT}-01"
    assert headers["tracestate"] == "vendor=1"
    decoded = signer.decode(headers["Outgrow-Bookmark"])
    assert decoded is not None
    assert decoded.position("main") == Position(1, 7)
    assert not telemetry.continued(headers, decoded, recorded=False).sampled
    continued = telemetry.continued(headers, decoded)
    assert (continued.trace_id, continued.parent_id, continued.sampled) == (TRACE, PARENT, True)
    assert continued.span_id != PARENT
    assert continued.local == {"tracestate": "vendor=1"}


def test_work_that_nobody_traces_begins_a_trace() -> None:
    for headers in ({}, {"traceparent": "nonsense"}):
        scope = telemetry.continued(headers, Bookmark())
        assert (len(scope.trace_id), len(scope.span_id), scope.parent_id) == (32, 16, "")

"""Traces to an OpenTelemetry collector, over OTLP/HTTP.

A recorded request becomes a root span and one span for each of its parts (scope.spans). A request
that is not recorded and fails becomes a root span alone: errors are always told. Spans are handed to
a bounded queue and sent by a thread, in batches; when the collector is away they are dropped.

Loaded only where an endpoint is set: it needs the extra outgrow[otlp].
"""

from __future__ import annotations

import atexit
import time

from outgrow.errors import Misuse
from outgrow.runtime.scope import Scope, Span
from outgrow.runtime.telemetry.tracecontext import new_span_id

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode
except ImportError as error:
    raise Misuse(
        "telemetry.otlp_endpoint is set, and OpenTelemetry is not installed",
        hint="pip install 'outgrow[otlp]'",
    ) from error

FLUSH_TIMEOUT_S = 3.0
EXPORT_TIMEOUT_S = 5.0
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("outgrow")


class Traces:
    """A sink for request_finished that makes spans."""

    def __init__(self, endpoint: str, application: str) -> None:
        self._resource = Resource.create({"service.name": application or "outgrow"})
        exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=EXPORT_TIMEOUT_S)
        self._processor = BatchSpanProcessor(exporter)
        atexit.register(self.close)

    def request_finished(
        self, scope: Scope, method: str, route: str, status: int, seconds: float, path: str, error: str | None
    ) -> None:
        if scope.spans is None and status < 500 and error is None:
            return
        # Both clocks are read now, so that the wall clock's jumps between do no harm.
        now, unix = time.perf_counter(), time.time_ns()
        root = _context(scope.trace_id, scope.span_id)
        attributes: dict[str, str | int | float | bool] = {
            "http.request.method": method,
            "http.route": route,
            "url.path": path[:512],
            "http.response.status_code": status,
        }
        if error is not None:
            attributes["error.type"] = error
        parent = _context(scope.trace_id, scope.parent_id, remote=True) if scope.parent_id else None
        for span in scope.spans or ():
            self._end(_child(span, scope.trace_id, root, self._resource, now, unix))
        self._end(
            ReadableSpan(
                name=f"{method} {route}",
                context=root,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                kind=SpanKind.SERVER,
                status=Status(StatusCode.ERROR) if status >= 500 or error is not None else Status(),
                start_time=unix - int(seconds * 1e9),
                end_time=unix,
                instrumentation_scope=_SCOPE,
            )
        )

    def flush(self) -> None:
        """Send what waits, for at most a few seconds."""
        self._processor.force_flush(int(FLUSH_TIMEOUT_S * 1000))

    def close(self) -> None:
        """Send what waits, and nothing that comes later."""
        atexit.unregister(self.close)
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _end(self, span: ReadableSpan) -> None:
        self._processor.on_end(span)


def traces_url(endpoint: str) -> str:
    """The collector's address for traces: the base URL of the settings with /v1/traces, if need be."""
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def _child(
    span: Span, trace_id: str, parent: SpanContext, resource: Resource, now: float, unix: int
) -> ReadableSpan:
    failed = "error" in span.attributes
    return ReadableSpan(
        name=span.name,
        context=_context(trace_id, new_span_id()),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR) if failed else Status(),
        start_time=unix - int((now - span.started) * 1e9),
        end_time=unix - int((now - span.ended) * 1e9),
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: str, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, _SAMPLED)

"""Traces to an OpenTelemetry collector, over OTLP/HTTP.

A request or message that is sampled becomes a span, and one more for each of its parts (scope.spans). So
does one that fails: errors are always told. Spans are handed to a bounded queue and sent by a thread, in
batches; when the collector is away they are dropped.

Loaded only where an endpoint is set: it needs the extra outgrow[otlp].
"""

from __future__ import annotations

import atexit
import time

from outgrow.errors import Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.events import Events
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
PATH_LENGTH_MAX = 512
Attributes = dict[str, str | int | float | bool]

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("outgrow")


class Traces:
    """A sink for request_finished and message_finished that makes spans."""

    def __init__(self, endpoint: str, application: str) -> None:
        self._resource = Resource.create({"service.name": application or "outgrow"})
        exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=EXPORT_TIMEOUT_S)
        self._processor = BatchSpanProcessor(exporter)
        atexit.register(self.close)

    def subscribe(self, events: Events) -> None:
        """Hear what becomes a trace."""
        events.request_finished.subscribe(self.request_finished)
        events.message_finished.subscribe(self.message_finished)

    def request_finished(
        self, scope: Scope, method: str, route: str, status: int, seconds: float, path: str, error: str | None
    ) -> None:
        """A span for a request that is sampled or has failed."""
        failed = status >= 500 or error is not None
        if not scope.sampled and not failed:
            return
        attributes: Attributes = {
            "http.request.method": method,
            "http.route": route,
            "url.path": path[:PATH_LENGTH_MAX],
            "http.response.status_code": status,
        }
        if error is not None:
            attributes["error.type"] = error
        self._record(scope, f"{method} {route}", SpanKind.SERVER, seconds, attributes, failed)

    def message_finished(self, task: str, outcome: str, seconds: float, attempt: int) -> None:
        """A span for a task that is sampled or has failed."""
        scope = request.current.get()  # the worker tells it while the message's scope is open
        failed = outcome != "done"
        if scope is None or not scope.trace_id or (not scope.sampled and not failed):
            return
        attributes: Attributes = {
            "outgrow.task": task,
            "outgrow.outcome": outcome,
            "outgrow.attempt": attempt,
        }
        self._record(scope, f"task {task}", SpanKind.CONSUMER, seconds, attributes, failed)

    def flush(self) -> None:
        """Send what waits, for at most a few seconds."""
        self._processor.force_flush(int(FLUSH_TIMEOUT_S * 1000))

    def close(self) -> None:
        """Send what waits, and nothing that comes later."""
        atexit.unregister(self.close)
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _record(
        self, scope: Scope, name: str, kind: SpanKind, seconds: float, attributes: Attributes, failed: bool
    ) -> None:
        """Hand over the scope's own span and those of its parts."""
        # Both clocks are read now, so that the wall clock's jumps between do no harm.
        now, unix = time.perf_counter(), time.time_ns()
        own = _context(scope.trace_id, scope.span_id)
        for span in scope.spans:
            self._processor.on_end(_child(span, scope.trace_id, own, self._resource, now, unix))
        self._processor.on_end(
            ReadableSpan(
                name=name,
                context=own,
                parent=_context(scope.trace_id, scope.parent_id, remote=True) if scope.parent_id else None,
                resource=self._resource,
                attributes=attributes,
                kind=kind,
                status=Status(StatusCode.ERROR) if failed else Status(),
                start_time=unix - int(seconds * 1e9),
                end_time=unix,
                instrumentation_scope=_SCOPE,
            )
        )


def traces_url(endpoint: str) -> str:
    """The collector's address for traces: the base URL of the settings with /v1/traces, if need be."""
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def _child(
    span: Span, trace_id: str, parent: SpanContext, resource: Resource, now: float, unix: int
) -> ReadableSpan:
    return ReadableSpan(
        name=span.name if span.kind == "query" else f"{span.kind} {span.name}",
        context=_context(trace_id, new_span_id()),
        parent=parent,
        resource=resource,
        attributes=_attributes(span),
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR) if span.error is not None else Status(),
        start_time=unix - int((now - span.ended + span.seconds) * 1e9),
        end_time=unix - int((now - span.ended) * 1e9),
        instrumentation_scope=_SCOPE,
    )


def _attributes(span: Span) -> Attributes:
    attributes: Attributes = {}
    if span.kind == "query":
        attributes["db.query.summary"] = span.name
    if span.node:
        attributes["outgrow.node"] = span.node
    if span.error is not None:
        attributes["error.type"] = span.error
    return attributes


def _context(trace_id: str, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, _SAMPLED)

"""Sinks for the events: metrics, recent requests, access log and traces.

telemetry = attach(events, settings, application="conduit")
Middleware(..., exposition=telemetry.exposition, recent=telemetry.recent)
telemetry.close()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from outgrow import endpoints
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark, Signer
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope
from outgrow.runtime.telemetry import logs, spans, tracecontext
from outgrow.runtime.telemetry.prometheus import Metrics
from outgrow.runtime.telemetry.recent import Recent

if TYPE_CHECKING:
    from outgrow.runtime.telemetry.otlp import Traces


class Telemetry:
    """What listens to one Outgrow object's events. `close` writes out what is still held."""

    def __init__(
        self,
        metrics: Metrics | None,
        access_log: logs.AccessLog | None,
        traces: Traces | None,
        recent: Recent | None = None,
    ) -> None:
        self.metrics = metrics
        self._recent = recent
        self._access_log = access_log
        self._traces = traces

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body of the metrics, in the format that the caller accepts."""
        if self.metrics is None:
            return "text/plain; charset=utf-8", b""
        return self.metrics.exposition(accept)

    def recent(self, query: bytes = b"") -> bytes:
        """The slow and failed requests that this query (see recent.py) asks for, as JSON."""
        return b"{}" if self._recent is None else self._recent.answer(query)

    def flush(self) -> None:
        """Write the lines and send the spans that are held, for at most a few seconds. Blocks."""
        if self._access_log is not None:
            self._access_log.flush()
        if self._traces is not None:
            self._traces.flush()

    def close(self) -> None:
        """Flush, and send no more spans after that. At the end of the process it happens by itself."""
        self.flush()
        if self._traces is not None:
            self._traces.close()


def attach(events: Events, settings: endpoints.Telemetry, *, application: str = "") -> Telemetry:
    """Subscribe the sinks that the settings ask for.

    Raises Misuse when traces are asked for and the extra outgrow[otlp] is not installed.
    """
    traces = None
    if settings.otlp_endpoint is not None:
        from outgrow.runtime.telemetry.otlp import Traces

        traces = Traces(settings.otlp_endpoint, application)
        traces.subscribe(events)
    metrics = recent = None
    if settings.metrics != "off":
        metrics, recent = Metrics(), Recent()
        metrics.subscribe(events)
        recent.subscribe(events)
    if traces is not None or recent is not None:
        spans.subscribe(events)
    access_log = None
    if settings.access_log:
        access_log = logs.AccessLog(logs.stderr_lines())
        events.request_finished.subscribe(access_log.request_finished)
    return Telemetry(metrics, access_log, traces, recent)


def outgoing_headers(signer: Signer | None = None) -> dict[str, str]:
    """Headers for a call to another service, so that it joins this trace and this session.

    Give the signer only where the other service shares the application's secret. Outside a request
    there is nothing to say, and the dictionary is empty.
    """
    scope = request.current.get()
    if scope is None:
        return {}
    headers = {}
    if scope.trace_id:
        headers["traceparent"] = tracecontext.traceparent(scope)
        state = tracecontext.state(scope)
        if state is not None:
            headers["tracestate"] = state
    if signer is not None and (scope.bookmark.positions or scope.bookmark.tags):
        headers["Outgrow-Bookmark"] = signer.encode(scope.bookmark)
    return headers


def continued(
    headers: Mapping[str, str], bookmark: Bookmark | None = None, *, recorded: bool = True
) -> Scope:
    """The scope of work that these headers (see `outgoing_headers`) asked for: in their trace.

    `recorded` is whether there is a collector; without one nothing is sampled.
    """
    parent = tracecontext.parse(headers.get("traceparent", "").encode())
    if parent is None:
        trace_id, span_id = tracecontext.new_ids()
        return Scope(bookmark, trace_id=trace_id, span_id=span_id)
    scope = Scope(
        bookmark,
        trace_id=parent.trace_id,
        span_id=tracecontext.new_span_id(),
        parent_id=parent.span_id,
        sampled=parent.sampled and recorded,
    )
    state = headers.get("tracestate")
    if state is not None:
        tracecontext.keep_state(scope, state.encode())
    return scope

"""Metrics from events: which event feeds which figure. docs/metrics.md describes them for people.

The sinks run inside requests, so each keeps its series in a dictionary by what the event says, and
does nothing else than count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope
from outgrow.runtime.telemetry.buffers import BufferMetrics, Flusher, add_gauges
from outgrow.runtime.telemetry.metrics import SERIES_MAX, Histogram, Number, Registry
from outgrow.runtime.telemetry.process import ProcessFigures
from outgrow.runtime.telemetry.replication import ReplicationMetrics

REQUEST_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERY_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
QUERY_FIRST_BOUND = QUERY_BOUNDS[0]
TASK_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


Read = Callable[[], Mapping[tuple[str, ...], float]]
"""Label values -> figure, asked at each scrape."""


class Metrics:
    """Every figure of one process. `subscribe` connects it to the events."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._http = _Http(self.registry)
        self._database = _Database(self.registry)
        self._replication = ReplicationMetrics(self.registry)
        self._cache = _Cache(self.registry)
        self._buffers = BufferMetrics(self.registry)
        self._queue = _Queue(self.registry)
        self._sessions = _Sessions(self.registry)
        ProcessFigures(self.registry)

    def subscribe(self, events: Events) -> None:
        """Hear every event of the catalogue."""
        parts = (self._http, self._database, self._replication, self._cache, self._buffers, self._queue)
        for part in (*parts, self._sessions):
            part.subscribe(events)

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body for a scrape."""
        return self.registry.exposition(accept)

    def gauge(self, name: str, help: str, labels: tuple[str, ...], read: Read) -> None:
        """A gauge that `read` answers: for pools and the like."""
        family = self.registry.gauge(name, help, *labels)

        def refresh() -> None:
            family.clear()
            for values, figure in read().items():
                family.series(*values).value = +figure  # True is 1: it is read as a number again

        self.registry.before.append(refresh)

    def buffers(self, flushers: Iterable[Flusher]) -> None:
        """The gauges of the buffers of write-behind."""
        add_gauges(self.gauge, flushers)

    def count(self, name: str, help: str, read: Callable[[], float]) -> None:
        """A counter that `read` answers, where something else counts already."""
        series = self.registry.counter(name, help).series()

        def refresh() -> None:
            series.value = read()

        self.registry.before.append(refresh)


class _Http:
    def __init__(self, registry: Registry) -> None:
        self._requests = registry.counter(
            "outgrow_http_requests_total", "Requests answered.", "method", "route", "status"
        )
        self._seconds = registry.histogram(
            "outgrow_http_request_seconds",
            "From the request's arrival to the last byte of its answer.",
            REQUEST_BOUNDS,
            "route",
        )
        self._exceptions = registry.counter(
            "outgrow_http_exceptions_total", "Requests that ended in an exception.", "route", "error"
        )
        in_flight = registry.gauge("outgrow_http_requests_in_flight", "Requests being worked on.")
        self._in_flight = in_flight.series()
        self._by_request: dict[tuple[str, str, int], tuple[Number, Histogram]] = {}

    def subscribe(self, events: Events) -> None:
        events.request_started.subscribe(self.started)
        events.request_finished.subscribe(self.finished)

    def started(self) -> None:
        self._in_flight.value += 1

    def finished(
        self, scope: Scope, method: str, route: str, status: int, seconds: float, path: str, error: str | None
    ) -> None:
        self._in_flight.value -= 1
        found = self._by_request.get((method, route, status))
        if found is None:
            found = self._find(method, route, status)
        found[0].value += 1
        found[1].observe(seconds)
        if error is not None:
            self._exceptions.series(route, error).value += 1

    def _find(self, method: str, route: str, status: int) -> tuple[Number, Histogram]:
        known = method if method in METHODS else "OTHER"
        pair = (self._requests.series(known, route, str(status)), self._seconds.series(route))
        if known == method and len(self._by_request) < SERIES_MAX:
            self._by_request[method, route, status] = pair
        return pair


class _Database:
    def __init__(self, registry: Registry) -> None:
        self._queries = registry.histogram(
            "outgrow_db_query_seconds",
            "Time of one statement, network included.",
            QUERY_BOUNDS,
            "node",
            "label",
        )
        self._errors = registry.counter(
            "outgrow_db_query_errors_total", "Statements that failed.", "node", "label", "error"
        )
        self._transactions = registry.histogram(
            "outgrow_db_transaction_seconds",
            "From BEGIN to the end of a write block. outcome: commit, rollback or unknown.",
            QUERY_BOUNDS,
            "node",
            "outcome",
        )
        self._waits = registry.histogram(
            "outgrow_db_connection_wait_seconds", "Waiting for a free connection.", QUERY_BOUNDS, "node"
        )
        self._open = registry.gauge("outgrow_db_connections", "Open connections.", "node")
        self._opened = registry.counter("outgrow_db_connections_opened_total", "Connections opened.", "node")

    def subscribe(self, events: Events) -> None:
        events.query_finished.subscribe(self.query, self.query_of)
        events.transaction_finished.subscribe(self.transaction)
        events.connection_waited.subscribe(self.waited)
        events.connection_opened.subscribe(self.opened)
        events.connection_closed.subscribe(self.closed)

    def query(self, node: str, label: str, seconds: float, error: str | None) -> None:
        self._queries.series(node, label).observe(seconds)
        if error is not None:
            self._errors.series(node, label, error).value += 1

    def query_of(self, node: str, label: str) -> Callable[[float, float, str | None], None]:
        """`query` for the statements of one label, with its histogram at hand."""
        series = self._queries.series(node, label)
        counts = series.counts

        def heard(ended: float, seconds: float, error: str | None) -> None:
            # series.observe(seconds), written out: most take less than the first bound.
            counts[0 if seconds <= QUERY_FIRST_BOUND else bisect_left(QUERY_BOUNDS, seconds)] += 1
            series.sum += seconds
            if error is not None:
                self._errors.series(node, label, error).value += 1

        return heard

    def transaction(self, node: str, outcome: str, seconds: float) -> None:
        self._transactions.series(node, outcome).observe(seconds)

    def waited(self, node: str, seconds: float) -> None:
        self._waits.series(node).observe(seconds)

    def opened(self, node: str) -> None:
        self._open.series(node).value += 1
        self._opened.series(node).value += 1

    def closed(self, node: str) -> None:
        self._open.series(node).value -= 1


class _Cache:
    def __init__(self, registry: Registry) -> None:
        self._reads = registry.counter(
            "outgrow_cache_reads_total",
            "Reads by key prefix. outcome: hit, shared, waited, old, miss, stale or session.",
            "prefix",
            "outcome",
        )
        self._looks = registry.histogram(
            "outgrow_cache_look_seconds", "Asking the shared cache for a value.", QUERY_BOUNDS
        )
        self._loads = registry.histogram(
            "outgrow_cache_load_seconds", "Time of a loader.", REQUEST_BOUNDS, "prefix", "stored"
        )
        invalidated = registry.counter("outgrow_cache_invalidations_total", "Tags and keys invalidated.")
        self._invalidated = invalidated.series()
        self._waits = registry.histogram(
            "outgrow_cache_wait_seconds",
            "Waiting for a load. why: place (so many run at once) or process (another one loads it).",
            REQUEST_BOUNDS,
            "why",
        )
        self._shared = registry.counter(
            "outgrow_cache_shared_changes_total", "How often the shared cache was up, down and back.", "state"
        )
        self._followed = registry.histogram(
            "outgrow_cache_change_seconds",
            "From a commit until its rows' tags are invalidated.",
            REQUEST_BOUNDS,
        ).series()
        self._failed = registry.counter(
            "outgrow_cache_change_errors_total", "Rows whose function has raised.", "table"
        )
        self._by_read: dict[tuple[str, str], Number] = {}

    def subscribe(self, events: Events) -> None:
        events.cache_read.subscribe(self.read)
        events.cache_loaded.subscribe(self.loaded)
        events.cache_invalidated.subscribe(self.invalidated)
        events.cache_waited.subscribe(self.waited)
        events.cache_looked.subscribe(self._looks.series().observe)
        events.cache_shared.subscribe(self.shared)
        events.cache_followed.subscribe(lambda tags, seconds: self._followed.observe(seconds))
        events.cache_change_failed.subscribe(self.failed)

    def read(self, prefix: str, outcome: str) -> None:
        found = self._by_read.get((prefix, outcome))
        if found is None:
            found = self._reads.series(prefix, outcome)
            if len(self._by_read) < SERIES_MAX:
                self._by_read[prefix, outcome] = found
        found.value += 1

    def loaded(self, prefix: str, seconds: float, stored: bool) -> None:
        self._loads.series(prefix, "yes" if stored else "no").observe(seconds)

    def waited(self, why: str, seconds: float) -> None:
        self._waits.series(why).observe(seconds)

    def shared(self, state: str) -> None:
        self._shared.series(state).value += 1

    def invalidated(self, tags: tuple[str, ...]) -> None:
        self._invalidated.value += len(tags)

    def failed(self, table: str) -> None:
        self._failed.series(table).value += 1


class _Queue:
    def __init__(self, registry: Registry) -> None:
        self._staged = registry.counter("outgrow_queue_messages_staged_total", "Messages committed.", "topic")
        self._finished = registry.histogram(
            "outgrow_queue_message_seconds",
            "Time of one attempt at a message. outcome: done, retry or dead.",
            TASK_BOUNDS,
            "task",
            "outcome",
        )

    def subscribe(self, events: Events) -> None:
        events.message_staged.subscribe(self.staged)
        events.message_finished.subscribe(self.finished)

    def staged(self, topic: str) -> None:
        self._staged.series(topic).value += 1

    def finished(self, task: str, outcome: str, seconds: float, attempt: int) -> None:
        self._finished.series(task, outcome).observe(seconds)


class _Sessions:
    def __init__(self, registry: Registry) -> None:
        self._loads = registry.histogram(
            "outgrow_session_load_seconds",
            "Finding the session of a request with a cookie, by what came of it.",
            QUERY_BOUNDS,
            "outcome",
        )
        self._saves = registry.histogram(
            "outgrow_session_save_seconds",
            "Keeping a session that a request has changed, by what came of it.",
            QUERY_BOUNDS,
            "outcome",
        )
        conflicts = registry.counter(
            "outgrow_session_conflicts_total", "Changes made again on what others had changed meanwhile."
        )
        self._conflicts = conflicts.series()

    def subscribe(self, events: Events) -> None:
        events.session_loaded.subscribe(self.loaded)
        events.session_saved.subscribe(self.saved)

    def loaded(self, outcome: str, seconds: float) -> None:
        self._loads.series(outcome).observe(seconds)

    def saved(self, outcome: str, seconds: float, attempts: int) -> None:
        self._saves.series(outcome).observe(seconds)
        self._conflicts.value += attempts - 1

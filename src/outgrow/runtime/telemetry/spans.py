"""The parts of a request, kept in its scope while it runs: whether anybody wants them shows at its end.

A part costs about a third of a microsecond, so every request has them: recent.py keeps those of
slow and failed requests, otlp.py sends those of sampled and failed ones.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from outgrow.runtime.events import Events
from outgrow.runtime.scope import Span, current

SPANS_MAX = 50
"""Parts of one request that are kept: a loop over queries must not fill the memory."""

WAIT_SHOWN_S = 0.0005
"""A shorter wait for a connection is none: every block has one."""


def subscribe(events: Events) -> None:
    """Keep the parts of what runs from now on."""
    events.query_finished.subscribe(query, query_of)
    events.transaction_finished.subscribe(transaction)
    events.connection_waited.subscribe(waited)
    events.cache_loaded.subscribe(loaded)


def query(node: str, label: str, seconds: float, error: str | None) -> None:
    """A statement has been run."""
    _keep("query", label, node, seconds, error)


def query_of(node: str, label: str) -> Callable[[float, float, str | None], None]:
    """The same for the statements of one label."""
    scope_of = current.get

    def heard(ended: float, seconds: float, error: str | None) -> None:
        scope = scope_of()
        if scope is not None and len(spans := scope.spans) < SPANS_MAX:
            spans.append(Span("query", label, node, ended, seconds, error))

    return heard


def transaction(node: str, outcome: str, seconds: float) -> None:
    """A write block has ended: it holds the queries within its time."""
    _keep("transaction", outcome, node, seconds, None if outcome == "commit" else outcome)


def waited(node: str, seconds: float) -> None:
    """A block has got its connection."""
    if seconds >= WAIT_SHOWN_S:
        _keep("wait", "connection", node, seconds)


def loaded(prefix: str, seconds: float, stored: bool) -> None:
    """A cache entry has been loaded."""
    _keep("load", prefix, "", seconds)


def _keep(kind: str, name: str, node: str, seconds: float, error: str | None = None) -> None:
    scope = current.get()
    if scope is not None and len(scope.spans) < SPANS_MAX:
        scope.spans.append(Span(kind, name, node, perf_counter(), seconds, error))

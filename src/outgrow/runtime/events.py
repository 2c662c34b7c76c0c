"""The catalogue of what the runtime tells about itself. Names and arguments are public.

A part of the runtime calls an event; sinks (Prometheus, logs, traces) subscribe to it. An event
without subscribers costs one empty loop. Sinks must not raise and must not block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Sink = Callable[..., Any]


class Event:
    """One kind of event: call it to tell, subscribe to hear."""

    __slots__ = ("arguments", "name", "sinks")

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.arguments = arguments
        self.sinks: tuple[Sink, ...] = ()

    def subscribe(self, sink: Sink) -> None:
        self.sinks = (*self.sinks, sink)

    def __call__(self, *values: Any) -> None:
        for sink in self.sinks:
            sink(*values)


class Events:
    """One set of events for each Outgrow object. Durations are in seconds."""

    def __init__(self) -> None:
        self.request_started = Event("request_started")
        self.request_finished = Event(
            "request_finished", "scope", "method", "route", "status", "seconds", "path", "error"
        )
        """`route` is the path's template ("/articles/{slug}"); "unmatched" where there is none."""

        self.query_finished = Event("query_finished", "node", "label", "seconds", "error")
        """`label` is "SELECT articles"; `error` is None or the class name of the error."""

        self.connection_waited = Event("connection_waited", "node", "seconds")
        self.connection_opened = Event("connection_opened", "node")
        self.connection_closed = Event("connection_closed", "node")
        self.transaction_finished = Event("transaction_finished", "node", "outcome", "seconds")
        """`outcome` is "commit", "rollback" or "unknown" (the connection broke during COMMIT)."""

        self.cache_read = Event("cache_read", "prefix", "outcome")
        """`prefix` is the key up to the first colon; `outcome` is "hit", "miss", "stale" or "waited"."""

        self.cache_loaded = Event("cache_loaded", "prefix", "seconds", "stored")
        self.cache_invalidated = Event("cache_invalidated", "tags")
        self.message_staged = Event("message_staged", "topic")
        self.message_finished = Event("message_finished", "task", "outcome", "seconds", "attempt")
        """`outcome` is "done", "retry" or "dead"."""

"""The catalogue of what the runtime tells about itself. Names and arguments are public.

A part of the runtime calls an event; sinks (Prometheus, logs, traces) subscribe to it. An event
without subscribers costs one empty loop. Sinks must not raise and must not block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

Sink = Callable[..., Any]


class Bound:
    """An event whose first values are always the same: what its sinks make of them is found once.

    For what is told so often that the search would be seen. Its sinks are called with the moment at which
    it ended (time.perf_counter()) and with the values that follow.
    """

    __slots__ = ("__weakref__", "first", "sinks")

    def __init__(self, first: tuple[Any, ...]) -> None:
        self.first = first
        self.sinks: tuple[Sink, ...] = ()

    def __call__(self, ended: float, *rest: Any) -> None:
        for sink in self.sinks:
            sink(ended, *rest)


class Event:
    """One kind of event: call it to tell, subscribe to hear."""

    __slots__ = ("_binders", "_bound", "arguments", "name", "sinks")

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.arguments = arguments
        self.sinks: tuple[Sink, ...] = ()
        self._binders: tuple[Callable[..., Sink], ...] = ()
        self._bound: WeakSet[Bound] = WeakSet()

    def subscribe(self, sink: Sink, bind: Callable[..., Sink] | None = None) -> None:
        """`bind(*first)` makes a quicker sink for Bound; without it, `sink` hears that too."""
        self.sinks = (*self.sinks, sink)
        self._binders = (*self._binders, bind or partial(_bind, sink))
        for bound in self._bound:
            self._bind(bound)

    def bound(self, *first: Any) -> Bound:
        """This event for these first values. Later subscribers are in it too."""
        bound = Bound(first)
        self._bind(bound)
        self._bound.add(bound)
        return bound

    def _bind(self, bound: Bound) -> None:
        bound.sinks = tuple(bind(*bound.first) for bind in self._binders)

    def __call__(self, *values: Any) -> None:
        for sink in self.sinks:
            sink(*values)


def _bind(sink: Sink, *first: Any) -> Sink:
    return lambda ended, *rest: sink(*first, *rest)


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

        self.commit_unreplicated = Event("commit_unreplicated", "node")
        """A commit that was to wait for a synchronous replica was ended without: it is on `node` alone."""

        self.read_routed = Event("read_routed", "node", "reason")
        """Told only where there are replicas. `reason` is one of routing.Reason."""

        self.read_waited = Event("read_waited", "shard", "seconds")
        """No node could serve at once."""

        self.read_shed = Event("read_shed", "shard")
        """No replica could serve, and the primary had as many reads in their place as it may have."""

        self.node_changed = Event("node_changed", "shard", "node", "role", "reason")
        """`role` is "primary", "replica" or "unknown"."""

        self.failed_over = Event("failed_over", "shard", "node", "timeline", "seconds")
        """Another primary was found, so many seconds after the last was known for the last time."""

        self.write_lost = Event("write_lost", "shard")
        """A session was told LostWrite."""

        self.cache_read = Event("cache_read", "prefix", "outcome")
        """`prefix` is the key up to the first colon; `outcome` is one of those in docs/metrics.md."""

        self.cache_loaded = Event("cache_loaded", "prefix", "seconds", "stored")
        self.cache_invalidated = Event("cache_invalidated", "tags")
        self.cache_waited = Event("cache_waited", "why", "seconds")
        """`why` is "place" (so many loads run at once) or "process" (another one loads it)."""

        self.cache_looked = Event("cache_looked", "seconds")
        """What all processes share was asked for a value that is not in this one's memory."""

        self.cache_shared = Event("cache_shared", "state")
        """What processes share is "up" for the first time, "down", or "back"."""

        self.buffer_flushed = Event("buffer_flushed", "strategy", "outcome", "seconds", "puts", "values")
        """Of a WriteBehind. `outcome` is "stored", "failed" or "aside"; `values` is how many were stored."""

        self.buffer_refused = Event("buffer_refused", "strategy")
        """A put found no room in time."""

        self.cache_followed = Event("cache_followed", "tags", "seconds")
        """So many tags were invalidated because rows had changed, so long after the first of the commits."""

        self.cache_change_failed = Event("cache_change_failed", "table")
        """The application's function for the rows of a table has raised."""

        self.message_staged = Event("message_staged", "topic")
        self.message_finished = Event("message_finished", "task", "outcome", "seconds", "attempt")
        """`outcome` is "done", "retry" or "dead"."""

        self.session_loaded = Event("session_loaded", "outcome", "seconds")
        """Of a request with a session cookie. `outcome` is "found", "unknown", "moved", "forged" or
        "unavailable"."""

        self.session_saved = Event("session_saved", "outcome", "seconds", "attempts")
        """`outcome` is "created", "updated", "rotated", "destroyed", "nothing", "gone", "conflict",
        "too_large", "unavailable" or "failed"; `attempts` is 1 when nobody else changed it meanwhile."""

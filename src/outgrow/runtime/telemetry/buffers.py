"""Metrics of the buffers of write-behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from outgrow.runtime.events import Events
from outgrow.runtime.telemetry.metrics import Registry

FLUSH_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

Gauge = Callable[[str, str, tuple[str, ...], Callable[[], Mapping[tuple[str, ...], float]]], None]


class Flusher(Protocol):
    """Whose buffer it is, and what was in it lately."""

    name: str

    @property
    def seen(self) -> Any: ...
    @property
    def waiting(self) -> int: ...


class BufferMetrics:
    """What is told when something is stored, or refused."""

    def __init__(self, registry: Registry) -> None:
        self._seconds = registry.histogram(
            "outgrow_buffer_flush_seconds",
            "Storing one batch of a buffer. outcome: stored, failed or aside.",
            FLUSH_BOUNDS,
            "strategy",
            "outcome",
        )
        self._stored = registry.counter(
            "outgrow_buffer_puts_stored_total", "Puts that were taken from a buffer and stored.", "strategy"
        )
        self._coalesced = registry.counter(
            "outgrow_buffer_puts_coalesced_total", "Those of them that a later put made needless.", "strategy"
        )
        self._refused = registry.counter(
            "outgrow_buffer_puts_refused_total", "Puts for which a buffer had no room in time.", "strategy"
        )

    def subscribe(self, events: Events) -> None:
        """Hear the events of the buffers."""
        events.buffer_flushed.subscribe(self.flushed)
        events.buffer_refused.subscribe(self.refused)

    def flushed(self, strategy: str, outcome: str, seconds: float, puts: int, values: int) -> None:
        """A batch was stored, or was not."""
        self._seconds.series(strategy, outcome).observe(seconds)
        if outcome == "stored":
            self._stored.series(strategy).value += puts
            self._coalesced.series(strategy).value += puts - values

    def refused(self, strategy: str) -> None:
        """Back-pressure has reached a caller."""
        self._refused.series(strategy).value += 1


def add_gauges(gauge: Gauge, flushers: Iterable[Flusher]) -> None:
    """What is in the buffers, as far as this process has looked: while something waits that is about a second
    ago at most. The age rises even if the database cannot be asked."""

    def each(of: Callable[[Flusher], float]) -> Callable[[], Mapping[tuple[str, ...], float]]:
        return lambda: {(flusher.name,): of(flusher) for flusher in flushers}

    for name, says, of in (
        ("entries", "Puts in a buffer, those set aside included.", lambda each: each.waiting),
        ("bytes", "Bytes of their values.", lambda each: each.seen.bytes),
        ("aside", "Puts that could not be stored, and were set aside.", lambda each: each.seen.aside),
        ("oldest_seconds", "How long the oldest put has waited to be stored.", _oldest_s),
    ):
        gauge(f"outgrow_buffer_{name}", says, ("strategy",), each(of))


def _oldest_s(flusher: Flusher) -> float:
    oldest: float = flusher.seen.oldest_at
    return max(0.0, time.time() - oldest) if oldest else 0.0

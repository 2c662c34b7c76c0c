"""What the drills of the shared cache have in common: it may vanish, and nothing but time may be lost."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.history import History
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

BACK_WITHIN_S = 10.0
"""It has nothing to read at a start, but a machine may be busy."""

WATCHED_S = 6.0
"""What was loaded before the fault would be shown again within it."""


def shared_cache(topology: Topology) -> str | None:
    """What is lacking where the fleet does not run a shared cache itself."""
    if topology.cache.engine != "redis" or topology.cache.url is not None:
        return "a shared cache that the fleet itself runs: `outgrow grow cache`"
    return None


def nobody_notices(history: History) -> Iterator[Finding]:
    """A cache holds copies alone: without it requests take longer, and that is all."""
    yield verdict.reads(history)
    yield verdict.no_write_fails(history)
    yield from nothing_is_lost(history)

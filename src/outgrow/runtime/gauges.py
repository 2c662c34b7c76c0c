"""What is looked at when somebody asks for figures, rather than counted when it happens."""

from __future__ import annotations

from collections.abc import Callable

from outgrow.runtime.cache import Cache
from outgrow.runtime.database.database import Database
from outgrow.runtime.following import Following
from outgrow.runtime.telemetry.prometheus import Metrics


def of_database(metrics: Metrics, database: Database, epoch: Callable[[], int]) -> None:
    """Its connections and its nodes. `epoch` is that of the endpoints document."""
    metrics.gauge(
        "outgrow_db_pool_connections",
        "Connections of the pool by state.",
        ("node", "state"),
        lambda: {
            (node, state): count
            for node, figures in database.figures().items()
            for state, count in figures.items()
        },
    )
    metrics.gauge(
        "outgrow_endpoints_epoch",
        "Epoch of the endpoints document that this process obeys.",
        (),
        lambda: {(): epoch()},
    )
    nodes = database.nodes
    metrics.gauge(
        "outgrow_db_node_role",
        "1 for the role that a node has, where there are replicas: primary, replica or unknown.",
        ("node", "role"),
        lambda: {(name, seen.role): 1 for name, seen in nodes().items()},
    )
    metrics.gauge(
        "outgrow_db_replication_lag_seconds",
        "How long a replica has not been complete, as far as this process knows.",
        ("node",),
        lambda: {(name,): seen.lag_s for name, seen in nodes().items() if seen.role == "replica"},
    )
    metrics.gauge(
        "outgrow_db_replication_lag_bytes",
        "What a replica has not replayed yet of what the primary has written.",
        ("node",),
        lambda: {(name,): seen.lag_bytes for name, seen in nodes().items() if seen.role == "replica"},
    )
    metrics.gauge(
        "outgrow_db_node_timeline",
        "The timeline that a node is on: the highest is the present one.",
        ("node",),
        lambda: {(name,): seen.timeline for name, seen in nodes().items() if seen.role != "unknown"},
    )


def of_cache(metrics: Metrics, cache: Cache) -> None:
    """What this process keeps, and its loads."""
    metrics.gauge(
        "outgrow_cache_entries",
        "Entries in this process's cache.",
        (),
        lambda: {(): cache.figures()["entries"]},
    )
    metrics.gauge(
        "outgrow_cache_loads",
        "Loads that have a place and run, and those that wait for one.",
        ("state",),
        lambda: {(state,): count for state, count in cache.limit.figures().items()},
    )
    metrics.gauge(
        "outgrow_cache_bytes",
        "About how many bytes the entries in this process's cache take.",
        (),
        lambda: {(): cache.store.bytes},
    )
    metrics.count(
        "outgrow_cache_evicted_total",
        "Entries of this process that had to go to make room.",
        lambda: cache.store.evicted,
    )


def of_changes(metrics: Metrics, following: Callable[[], Following | None]) -> None:
    """Who reads what has changed in the database, and how far behind; nothing where nobody does."""

    def of(figure: Callable[[Following], float]) -> Callable[[], dict[tuple[str, ...], float]]:
        def figures() -> dict[tuple[str, ...], float]:
            now = following()
            return {} if now is None else {(): figure(now)}

        return figures

    metrics.gauge(
        "outgrow_cache_changes_reading",
        "1 in the process that reads what has changed in the database.",
        (),
        of(lambda now: now.reads),
    )
    metrics.gauge(
        "outgrow_cache_changes_lag_bytes",
        "What of the database's log has not been read yet, as this process saw it last.",
        (),
        of(lambda now: now.behind),
    )

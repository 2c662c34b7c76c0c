"""What a Prometheus asks of the fleet itself: its nodes, its backups, its cache. docs/metrics.md lists it."""

from __future__ import annotations

from outgrow.cluster import Status
from outgrow.cluster.status import SYNCHRONOUS, Backups
from outgrow.engines.redis.cache import Figures
from outgrow.runtime.telemetry.metrics import Registry


def exposition(status: Status | None, cache: Figures | None, accept: str) -> tuple[str, bytes]:
    """Content type and body. What is unknown has no series."""
    return registry(status, cache).exposition(accept)


def registry(status: Status | None, cache: Figures | None = None) -> Registry:
    """The figures of this moment."""
    made = Registry()
    up = made.gauge("outgrow_fleet_node_up", "1 while a node is ready, else 0.", "node", "tier")
    for node in status.nodes if status is not None else ():
        if node.kind == "service":
            up.series(node.name, node.tier).value = node.state == "ready"
    _add_replicas(made, status)
    _add_backups(made, status.backups if status is not None else None)
    _add_cache(made, cache)
    return made


def _add_replicas(made: Registry, status: Status | None) -> None:
    """Of a database with replicas. Whether one is synchronous only where some are to be."""
    says = "1 for a replica that commits wait for, 0 for another."
    synchronous = made.gauge("outgrow_fleet_db_synchronous", says, "node")
    kept = made.gauge("outgrow_fleet_db_log_kept_bytes", "What of the log is kept for a replica.", "node")
    for node in status.nodes if status is not None else ():
        if node.kept is not None:
            kept.series(node.name).value = node.kept
        if status is not None and status.replication != "async" and node.role not in ("", "primary"):
            synchronous.series(node.name).value = node.role == SYNCHRONOUS


def _add_cache(made: Registry, now: Figures | None) -> None:
    """Of the shared cache's Redis."""
    families = (
        made.gauge("outgrow_cache_server_memory_bytes", "Memory that the shared cache takes."),
        made.gauge("outgrow_cache_server_memory_max_bytes", "Memory that it may take."),
        made.gauge("outgrow_cache_server_keys", "Keys in it."),
        made.counter("outgrow_cache_server_evicted_total", "Keys that had to go to make room."),
    )
    for family, value in zip(families, now or (None,) * len(families), strict=True):
        family.clear()
        if value is not None:
            family.series().value = value


def _add_backups(made: Registry, backups: Backups | None) -> None:
    for name, says, value in _figures(backups or Backups()):
        family = made.gauge(f"outgrow_backup_{name}", says)
        family.clear()
        if backups is not None and value is not None:
            family.series().value = value


def _figures(now: Backups) -> tuple[tuple[str, str, float | None], ...]:
    return (
        ("seen_timestamp_seconds", "When the backups were looked after last, in Unix time.", now.at),
        ("interval_seconds", "How often the whole database is to be copied.", now.every),
        ("latest_copy_timestamp_seconds", "When the newest copy was complete, in Unix time.", now.latest),
        ("earliest_timestamp_seconds", "The first moment that can be restored, in Unix time.", now.earliest),
        ("copies", "Copies of the whole that there are.", now.copies),
        ("last_failure_timestamp_seconds", "When a copy failed last, in Unix time.", now.failed_at),
        ("failing", "1 while the last attempt at a copy has failed, else 0.", bool(now.failure)),
        ("mirror_lag_seconds", "How long ago the mirror had everything.", now.mirror_behind_s),
        ("archive_connected", "1 while the write-ahead log is being read, else 0.", now.connected),
        ("archive_lag_seconds", "How long ago was written what the archive has last.", now.behind_s),
        ("archive_lag_bytes", "What of the write-ahead log the archive does not have yet.", now.behind),
    )

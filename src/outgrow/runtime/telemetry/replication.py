"""What is told of replicas: figures for Prometheus, and a line in the log for what is rare."""

from __future__ import annotations

import logging

from outgrow.runtime.events import Events
from outgrow.runtime.telemetry.metrics import Number, Registry

WAIT_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FAILOVER_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0)

logger = logging.getLogger("outgrow.replication")


class ReplicationMetrics:
    """Where reads went and why, and what became of the primary."""

    def __init__(self, registry: Registry) -> None:
        self._reads = registry.counter(
            "outgrow_db_reads_total", "Read blocks by node and by why it was chosen.", "node", "reason"
        )
        self._waits = registry.histogram(
            "outgrow_db_read_wait_seconds", "Waiting until any node could serve.", WAIT_BOUNDS, "shard"
        )
        self._shed = registry.counter(
            "outgrow_db_reads_shed_total", "Reads refused, since no replica served.", "shard"
        )
        self._failovers = registry.histogram(
            "outgrow_db_failover_seconds",
            "Between the last look at a primary and the first at its successor.",
            FAILOVER_BOUNDS,
            "shard",
        )
        self._lost = registry.counter(
            "outgrow_db_lost_writes_total", "Sessions that were told LostWrite.", "shard"
        )
        self._alone = registry.counter(
            "outgrow_db_commits_unreplicated_total",
            "Commits whose wait for a synchronous replica was ended.",
            "node",
        )
        self._changes = registry.counter(
            "outgrow_db_node_changes_total", "Nodes that are not what they were.", "node", "role"
        )
        self._by_choice: dict[tuple[str, str], Number] = {}

    def subscribe(self, events: Events) -> None:
        """Hear what concerns replicas."""
        events.read_routed.subscribe(self.routed)
        events.read_waited.subscribe(lambda shard, seconds: self._waits.series(shard).observe(seconds))
        events.read_shed.subscribe(lambda shard: _add(self._shed.series(shard)))
        events.failed_over.subscribe(self.failed_over)
        events.write_lost.subscribe(self.lost)
        events.commit_unreplicated.subscribe(self.unreplicated)
        events.node_changed.subscribe(self.changed)

    def routed(self, node: str, reason: str) -> None:
        """One more read."""
        found = self._by_choice.get((node, reason))
        if found is None:
            found = self._by_choice[node, reason] = self._reads.series(node, reason)
        found.value += 1

    def failed_over(self, shard: str, node: str, timeline: int, seconds: float) -> None:
        """Another primary."""
        self._failovers.series(shard).observe(seconds)
        logger.warning(
            "shard %s: %s is the primary now (timeline %d), %.2f s after the last",
            shard,
            node,
            timeline,
            seconds,
        )

    def lost(self, shard: str) -> None:
        """A session has seen more than there is."""
        _add(self._lost.series(shard))
        logger.error("shard %s: a failover has lost what a session had written or seen", shard)

    def unreplicated(self, node: str) -> None:
        """A commit that is on one server alone."""
        _add(self._alone.series(node))
        logger.error("%s: a commit did not wait for its synchronous replica to the end", node)

    def changed(self, shard: str, node: str, role: str, reason: str) -> None:
        """A node is not what it was."""
        _add(self._changes.series(node, role))
        level = logging.WARNING if role == "unknown" else logging.INFO
        logger.log(level, "shard %s: %s is %s%s", shard, node, role, f" ({reason})" if reason else "")


def _add(series: Number) -> None:
    series.value += 1

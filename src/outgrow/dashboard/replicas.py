"""The nodes of a database with replicas: what each is, how far behind, which reads go there and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from outgrow.advisor.measures import Tally
from outgrow.cluster import NodeStatus
from outgrow.cluster.failovers import PHASES, Failover
from outgrow.dashboard.events import Events
from outgrow.dashboard.snapshot import Replica

FRESH = "fresh"
"""Why a replica is read from; every other reason is one for the primary (runtime/database/routing.py)."""


def replicas(nodes: Sequence[NodeStatus], whole: Tally) -> list[Replica]:
    """The primary first. `whole` is what all processes have read lately; None of a single server."""
    databases = [node for node in nodes if node.tier == "database"]
    if not any(node.role for node in databases):
        return []
    total = sum(whole.reads.values())
    found = [_replica(node, whole, total) for node in databases]
    return sorted(found, key=lambda each: (each.role != "primary", len(each.name), each.name))


def _replica(node: NodeStatus, whole: Tally, total: float) -> Replica:
    reasons = {
        reason: count / whole.seconds for (name, reason), count in whole.reads.items() if name == node.name
    }
    reads = sum(reasons.values())
    return Replica(
        name=node.name,
        role=node.role,
        state=node.state,
        text=node.text,
        timeline=node.timeline,
        lag=node.lag,
        reads=reads if whole.seconds else None,
        share=reads * whole.seconds / total if total else None,
        reasons={reason: rate for reason, rate in sorted(reasons.items()) if rate},
    )


def series(found: Sequence[Replica]) -> dict[str, float | None]:
    """For the history, by node."""
    figures: dict[str, float | None] = {}
    for each in found:
        figures[f"reads:{each.name}"] = each.reads
        if each.role and each.role != "primary":
            figures[f"lag:{each.name}"] = float(each.lag or 0)
    return figures


class Watch:
    """Turns failovers into events: when the primary was lost, and when another one takes writes."""

    def __init__(self, events: Events) -> None:
        self._events = events
        told = [event.at for event in events.kept if event.kind == "failover"]
        self._told = max(told, default=0.0)

    def look(self, failovers: Sequence[Failover]) -> None:
        """What is new."""
        for each in failovers:
            self._tell(each.began, _begins(each))
            if each.writes_s is not None:
                self._tell(each.began + each.writes_s, _ends(each))

    def _tell(self, at: float, text: str) -> None:
        """What has been told is not told again, also after the dashboard was started again."""
        if at > self._told:
            self._told = at
            self._events.add(at, "failover", text)


def _begins(failover: Failover) -> str:
    if failover.planned:
        return f"switchover: {failover.before} hands over"
    return f"{failover.before} is lost as the primary" + (f": {failover.reason}" if failover.reason else "")


def _ends(failover: Failover) -> str:
    phases = ", ".join(f"{name} {failover.phases[name]:.2f} s" for name in PHASES[:3])
    return f"{failover.after} is the primary; writes were away for {failover.writes_s:.2f} s: {phases}"

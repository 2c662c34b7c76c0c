"""One word for how the fleet is, and the reasons. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from outgrow.cluster import NodeStatus, Status
from outgrow.dashboard.process import Process
from outgrow.dashboard.snapshot import Health, HealthStatus

_ORDER: tuple[HealthStatus, ...] = ("ok", "unknown", "degraded", "failing")


def judge(status: Status, answers: bool, processes: Mapping[str, Process]) -> Health:
    """The worst of what the supervisor, the nodes and their own deep checks say."""
    found: list[tuple[HealthStatus, str]] = []
    if not answers:
        found.append(("unknown", "the fleet's supervisor does not answer"))
    for node in status.nodes:
        found += _of_node(node)
    for name, process in processes.items():
        found += _of_process(name, process)
    if status.backups is not None:
        found += [("degraded", wrong) for wrong in status.backups.wrong]
    worst = max((level for level, _ in found), key=_ORDER.index, default=_ORDER[0])
    return Health(worst, [reason for _, reason in found])


def _of_node(node: NodeStatus) -> list[tuple[HealthStatus, str]]:
    if node.state == "failed":
        return [("failing" if node.tier else "degraded", f"{node.name} has failed: {node.text}")]
    if node.state in ("restarting", "starting") and node.tier:
        return [("degraded", f"{node.name} is {node.state}" + (f": {node.text}" if node.text else ""))]
    return []


def _of_process(name: str, process: Process) -> list[tuple[HealthStatus, str]]:
    return [
        (
            "failing" if check.critical else "degraded",
            f"{name}: {check.name}: {check.reason or 'is not in order'}",
        )
        for check in process.health.checks
        if not check.ok
    ]

"""Which workload comes after which. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from outgrow.errors import FleetError
from outgrow.workload import Workload


def in_order(workloads: Sequence[Workload]) -> list[Workload]:
    """Each after what it names, else as given. Raises FleetError for a circle or a wrong name."""
    known = {workload.name: workload for workload in workloads}
    if len(known) < len(workloads):
        raise FleetError("two workloads have the same name")
    ordered: dict[str, Workload] = {}

    def place(workload: Workload, waiting: tuple[str, ...]) -> None:
        if workload.name in ordered:
            return
        if workload.name in waiting:
            raise FleetError(f"workloads wait for each other: {' -> '.join((*waiting, workload.name))}")
        for name in workload.after:
            if name not in known:
                raise FleetError(f"workload {workload.name} waits for {name}, which does not exist")
            place(known[name], (*waiting, workload.name))
        ordered[workload.name] = workload

    for workload in workloads:
        place(workload, ())
    return list(ordered.values())


def to_stop(ordered: Sequence[Workload]) -> list[list[Workload]]:
    """In groups that can end together, those that no other needs first. Takes what in_order returns."""
    turn: dict[str, int] = {}
    for workload in reversed(ordered):
        mine = turn.setdefault(workload.name, 0)
        for name in workload.after:
            turn[name] = max(turn.get(name, 0), mine + 1)
    groups = range(max(turn.values(), default=-1) + 1)
    return [[each for each in reversed(ordered) if turn[each.name] == group] for group in groups]

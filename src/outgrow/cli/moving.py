"""What `grow` and `shrink` have in common: the move from the stage that runs now to another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outgrow.cli import application
from outgrow.cli.changing import Changes
from outgrow.cli.console import Console, dim, good, strong
from outgrow.cli.stopping import until_stopped
from outgrow.errors import FleetNotRunning, Misuse

if TYPE_CHECKING:
    from outgrow.growth.grow import Outcome
    from outgrow.topology.model import Topology


class Report(Changes):
    """The steps, as they go on, and what has come of them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "step")

    def outcome(self, outcome: Outcome) -> None:
        """It has ended well."""
        self.close()
        if self._console.as_json:
            self._console.document({"event": "ended", **outcome._asdict()})
            return
        place = outcome.after if outcome.outcome == "done" else outcome.before
        lines = [f"{good('✓')} at stage {strong(place)}"]
        if "held_s" in outcome.facts and outcome.outcome == "done":
            lines.append(f"  writes were held for {outcome.facts['held_s']:.2f} s")
        if "checksum" in outcome.facts and outcome.outcome == "done":
            lines.append(dim(f"  all data is the same, checksum {outcome.facts['checksum']}"))
        self._console.result(None, "\n".join(lines))


def topologies(directory: Path, before: str, after: str) -> tuple[Topology, Topology]:
    """outgrow.toml at these two stages, served where the fleet serves now."""
    return application.topology(directory, stage=before), application.topology(directory, stage=after)


def stage_now(directory: Path) -> tuple[str, int]:
    """The stage and the port of the running fleet. Raises FleetNotRunning."""
    from outgrow import cluster

    status = asyncio.run(cluster.status(directory, measured=False))
    return status.stage, int(status.url.rpartition(":")[2])


def stage_before(directory: Path, number: int) -> int:
    """The nearest earlier stage to which a move leads from stage `number`; else simply the one before."""
    from outgrow.growth import grow

    for earlier in range(number - 1, 0, -1):
        try:
            grow.steps(*topologies(directory, str(number), str(earlier)))
        except Misuse:  # not built yet, or more than one move
            continue
        return earlier
    return number - 1


def go(directory: Path, stage: str, console: Console) -> None:
    """Move to that stage, or finish a move to it that was cut off."""
    from outgrow.growth import grow

    before, port = stage_now(directory)
    journal = grow.under_way(directory)
    if journal.open and journal.begun.before is not None:
        before = journal.begun.before.stage
    first, last = (each.with_port(port) for each in topologies(directory, before, stage))
    _report(console, lambda tell: grow.grow(directory, first, last, tell=tell))


def finish(directory: Path, console: Console, *, forward: bool) -> None:
    """Resume or undo what was cut off."""
    from outgrow.growth import grow

    _, port = stage_now(directory)
    journal = grow.under_way(directory)
    if not journal.open or journal.begun.before is None or journal.begun.after is None:
        raise Misuse("no growth is under way", hint="`outgrow grow STAGE` begins one")
    stages = journal.begun.before.stage, journal.begun.after.stage
    first, last = (each.with_port(port) for each in topologies(directory, *stages))
    way = grow.resume if forward else grow.undo
    _report(console, lambda tell: way(directory, first, last, tell=tell))


def goes_back(directory: Path) -> str:
    """The earlier stage to which a move was cut off; "" if none. Raises Misuse when to a further one."""
    from outgrow import stages
    from outgrow.growth import grow, journal

    unfinished = grow.under_way(directory)
    if not unfinished.open or unfinished.begun.before is None or unfinished.begun.after is None:
        return ""
    if stages.find(unfinished.begun.after.stage).number > stages.find(unfinished.begun.before.stage).number:
        journal.require_none(unfinished)
    return unfinished.begun.after.stage


def show(directory: Path, stage: str, console: Console) -> None:
    """The steps of the move, and nothing done."""
    from outgrow.growth import grow

    try:
        before = stage_now(directory)[0]
    except FleetNotRunning:
        before = application.topology(directory).stage
    steps = grow.steps(*topologies(directory, before, stage))
    lines = [f"from {strong(before)} to {strong(stage)}, while the application serves:", ""]
    lines += [f"  {number}. {name}  {dim(says)}" for number, (name, says) in enumerate(steps, 1)]
    document = {"from": before, "to": stage, "steps": [{"name": name, "does": says} for name, says in steps]}
    console.result(document, "\n".join(lines))


def _report(console: Console, work: Any) -> None:
    report = Report(console)
    try:
        report.outcome(asyncio.run(until_stopped(work(report.tell))))
    finally:
        report.close()

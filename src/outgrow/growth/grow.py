"""The ways in: begin or go on, take back, show. Each holds the lock of the application's growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from outgrow.cluster.state import State
from outgrow.errors import FleetNotRunning, Misuse
from outgrow.growth import journal as journals
from outgrow.growth import runner, settings
from outgrow.growth.journal import Journal
from outgrow.growth.plan import move_between, named
from outgrow.growth.runner import Tell
from outgrow.growth.step import Context
from outgrow.topology import Topology
from outgrow.topology.diff import diff


class Outcome(NamedTuple):
    """How a growth ended, and what its steps have kept."""

    move: str
    before: str
    after: str
    outcome: str
    facts: dict[str, Any]


def under_way(directory: Path) -> Journal:
    """The journal; `open` when a growth is not finished. Raises StateUnreadable."""
    return Journal(State(directory).growth)


async def grow(directory: Path, before: Topology, after: Topology, *, tell: Tell) -> Outcome:
    """Move a running application from one topology to another, or go on with exactly that.

    Raises Misuse, FleetNotRunning, GrowthFailed, FleetError.
    """
    folder = _require_running(directory).growth
    with journals.locked(folder, f"growing from {before.stage} to {after.stage}"):
        journal = Journal(folder)
        if journal.open and (journal.begun.after or after).stage != after.stage:
            journals.require_none(journal)
        if not journal.open:
            _require_settable(directory, after)
            journal.begin(move_between(before, after).name, before, after)
        return await _run(directory, journal, before, after, tell)


async def resume(directory: Path, before: Topology, after: Topology, *, tell: Tell) -> Outcome:
    """Finish what the journal tells of. Raises like grow, and Misuse when there is nothing."""
    folder = _require_running(directory).growth
    with journals.locked(folder, "resuming a growth"):
        return await _run(directory, _require_open(folder), before, after, tell)


async def undo(directory: Path, before: Topology, after: Topology, *, tell: Tell) -> Outcome:
    """Take back what the journal tells of. Raises like resume."""
    folder = _require_running(directory).growth
    with journals.locked(folder, "undoing a growth"):
        journal = _require_open(folder)
        context = _context(directory, journal, before, after)
        move = journal.begun.move
        await runner.backward(journal, context, tell)
        return Outcome(move, before.stage, after.stage, "undone", dict(context.kept))


def steps(before: Topology, after: Topology) -> list[tuple[str, str]]:
    """The steps of the move from one to the other: name, and what it does. Raises Misuse."""
    return [(step.name, step.says) for step in move_between(before, after).steps()]


async def _run(directory: Path, journal: Journal, before: Topology, after: Topology, tell: Tell) -> Outcome:
    context = _context(directory, journal, before, after)
    move = named(journal.begun.move)
    await runner.forward(journal, context, tell)
    return Outcome(move.name, before.stage, after.stage, "done", dict(context.kept))


def _require_settable(directory: Path, after: Topology) -> None:
    """What outgrow.toml will mean must be what the move makes, or the next start would be something else."""
    wanted = settings.require_settable(directory / settings.FILE, settings.of(directory, after))
    differences = diff(wanted.balancer, after.balancer)
    if differences:
        raise Misuse(
            f"at stage {after.stage} this outgrow.toml would mean another balancer: "
            f"{', '.join(f'{each.path} = {each.before}' for each in differences)}",
            hint="remove these lines of [balancer], which the stage says",
        )


def _context(directory: Path, journal: Journal, before: Topology, after: Topology) -> Context:
    return Context(directory, before, after, journal.kept)


def _require_running(directory: Path) -> State:
    state = State(directory)
    if state.holder() is None:
        raise FleetNotRunning(str(directory))
    return state


def _require_open(folder: Path) -> Journal:
    journal = Journal(folder)
    if not journal.open:
        raise Misuse("no growth is under way", hint="`outgrow grow STAGE` begins one")
    return journal

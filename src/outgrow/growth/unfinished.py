"""A growth that is not finished, for whoever looks at the fleet: what it is, since when, and what to do."""

from __future__ import annotations

from pathlib import Path

import msgspec

from outgrow.cluster.state import State
from outgrow.growth import journal as journals
from outgrow.growth.journal import Journal
from outgrow.growth.step import Context


class Unfinished(msgspec.Struct, frozen=True):
    """What its journal tells. Times are Unix time."""

    move: str
    before: str
    after: str
    began: float
    step: str
    """Where it is; "" when no step has begun."""
    event: str
    since: float
    """When the last line was written: the step began, ended, failed or was taken back."""
    failure: str
    worked_on_by: str | None
    """Who finishes or undoes it just now; None when it was cut off and waits for somebody."""
    moved: bool
    """Whether the decisive step is behind it, so that it can only be finished."""

    @property
    def ways(self) -> tuple[str, ...]:
        """The commands that end it."""
        return ("outgrow grow --resume",) if self.moved else ("outgrow grow --resume", "outgrow grow --undo")


def unfinished(directory: Path) -> Unfinished | None:
    """The growth of this application that has begun and not ended. Raises StateUnreadable."""
    folder = State(directory).growth
    worker = journals.holder(folder)  # before the journal: one that ends meanwhile has none
    journal = Journal(folder)
    if not journal.open:
        return None
    first, last = journal.begun, journal.entries[-1]
    assert first.before is not None and first.after is not None
    return Unfinished(
        first.move,
        first.before.stage,
        first.after.stage,
        first.at,
        last.step,
        last.event,
        last.at,
        journal.last_failure(),
        worker,
        Context(directory, first.before, first.after, journal.kept).decided,
    )

"""What a move is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from outgrow.cluster.state import State
from outgrow.topology import Topology

DECISIVE_EPOCH = "decisive_epoch"
"""Kept by the decisive step before it publishes: once the endpoints have it, the data has moved."""


class Context:
    """What every step of one growth knows.

    `keep` writes facts into the journal, which a step finds in `kept` again after a crash.
    """

    def __init__(self, directory: Path, before: Topology, after: Topology, kept: dict[str, Any]) -> None:
        self.directory = directory
        self.before = before
        self.after = after
        self.kept = kept
        self.state = State(directory)
        self.says: Callable[[str], None] = lambda text: None
        self.keep: Callable[[dict[str, Any]], None] = kept.update

    @property
    def decided(self) -> bool:
        """Whether the point of no return has been passed: the document that says so has been published.

        The epoch alone does not tell it: a fleet that is started again publishes a higher one, too.
        """
        epoch, document = self.kept.get(DECISIVE_EPOCH), self.state.published()
        if epoch is None or document is None:
            return False
        nodes = len(document.database.shards[0].nodes)
        there = self.before.database.copies == self.after.database.copies or (
            nodes == self.after.database.copies + 1
        )
        return bool(document.epoch >= epoch and document.stage == self.after.stage and there)


Action = Callable[[Context], Awaitable[None]]


async def nothing(context: Context) -> None:
    """Where a step has nothing to do."""


class Step(NamedTuple):
    """One step. All three may be called again after a crash at any of their lines.

    `apply` makes it so; `verify` raises VerificationFailed when it is not so; `undo` makes it as
    before. What a restart of the fleet would end, such as a server, is a `lasting` step's: it is applied
    again before a growth goes on. One step of a move is decisive: it keeps DECISIVE_EPOCH and publishes
    that epoch, and from then on the way is forward.
    """

    name: str
    says: str
    apply: Action
    verify: Action = nothing
    undo: Action = nothing
    lasting: bool = False


class Move(Protocol):
    """One change of topology."""

    name: ClassVar[str]
    says: ClassVar[str]

    def fits(self, before: Topology, after: Topology) -> bool:
        """Whether it leads from one to the other."""
        ...

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        ...

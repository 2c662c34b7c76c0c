"""What a stage of the ladder is: a named point, with the reason to go there and its price."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from outgrow.topology import Topology


class Due(NamedTuple):
    """The measured condition that calls for a stage: `measure` beyond `value` for `minutes`.

    Measures are named as in docs/metrics.md or as the fleet's own figures; shares are 0 to 1.
    """

    measure: str
    comparison: Literal[">", "<"]
    value: float
    minutes: float
    says: str


class Promise(NamedTuple):
    """What must hold after the stage, and the test that proves it: None while there is none.

    `drills` are those by which everybody can see it on a fleet of their own: `outgrow drill NAME`.
    """

    says: str
    drill: str | None = None
    drills: tuple[str, ...] = ()


class Stage(NamedTuple):
    """One stage. `change` gives the topology that the stage adds to another; None: not built yet."""

    number: int
    name: str
    title: str
    problem: str
    due: tuple[Due, ...]
    adds: str
    promises: tuple[Promise, ...]
    cost: str
    change: Callable[[Topology], Topology] | None = None

    @property
    def built(self) -> bool:
        """Whether this version has it."""
        return self.change is not None

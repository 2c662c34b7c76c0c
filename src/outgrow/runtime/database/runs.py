"""What is known of runs (routing.py): which were primaries, and how far those have come that have ended."""

from __future__ import annotations

from time import monotonic

from outgrow.runtime.bookmark import Position

RUNS_MAX = 256


class Runs:
    """How far runs have come that have ended: what a session can have seen there, and no more."""

    def __init__(self) -> None:
        self.bounds: dict[int, Position] = {}
        self.primaries: dict[int, None] = {}
        self._ended: dict[int, tuple[float, int]] = {}

    def end(self, run: int, timeline: int) -> None:
        """This run is over; `timeline` was the present one."""
        if run:
            self._ended[run] = (monotonic(), timeline)

    def primary(self, run: int) -> None:
        """This run is the primary's, which is remembered when it is over as well."""
        self.primaries[run] = None
        if len(self.primaries) > RUNS_MAX:
            del self.primaries[next(iter(self.primaries))]

    def bound(self, at: float, position: Position) -> None:
        """The primary had written no more than `position` when it was asked at `at`."""
        for run, (ended, timeline) in list(self._ended.items()):
            if timeline != position.timeline:  # it may have shown what this primary never had
                del self._ended[run]
            elif ended <= at:
                del self._ended[run]
                self.is_within(run, position)

    def is_within(self, run: int, position: Position) -> None:
        """Whatever this run has shown is in `position`."""
        self.bounds[run] = position
        if len(self.bounds) > RUNS_MAX:
            del self.bounds[next(iter(self.bounds))]

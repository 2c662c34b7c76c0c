"""When requests are meant to start: fixed before the first one leaves, whatever the application does.

The rate over time is a curve of straight pieces, the phases. Under it lie the marks: 0, 1, 2, ... for
constant arrivals, sums of exponential steps for Poisson's, which is what many independent users make. A
request starts where the area under the curve reaches its mark.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from typing import Literal

from outgrow.load.profile import Phase

Arrivals = Literal["poisson", "constant"]


def starts(phases: Iterable[Phase], arrivals: Arrivals, seed: int) -> Iterator[float]:
    """Seconds from the beginning, rising: the same for the same seed."""
    marks = _poisson(random.Random(seed)) if arrivals == "poisson" else map(float, itertools.count())
    mark = next(marks)
    area, began = 0.0, 0.0
    for phase in phases:
        whole = requests(phase)
        while mark - area < whole:
            yield began + _reached(phase, mark - area)
            mark = next(marks)
        area += whole
        began += phase.duration


def requests(phase: Phase) -> float:
    """How many requests the phase is meant to have."""
    return (phase.rate + _last(phase)) / 2 * phase.duration


def rate_at(phases: Iterable[Phase], second: float) -> float:
    """Requests a second that are meant at this moment; 0 before and after."""
    began = 0.0
    for phase in phases:
        if began <= second < began + phase.duration:
            return phase.rate + (_last(phase) - phase.rate) * (second - began) / phase.duration
        began += phase.duration
    return 0.0


def _reached(phase: Phase, area: float) -> float:
    """Seconds into the phase until so many requests are due: rate * t + slope / 2 * t**2 = area."""
    slope = (_last(phase) - phase.rate) / phase.duration
    if slope == 0:
        return area / phase.rate
    root = math.sqrt(max(phase.rate * phase.rate + 2 * slope * area, 0.0))
    # The form without a difference of nearly equal numbers.
    return min(2 * area / (phase.rate + root), phase.duration) if area else 0.0


def _last(phase: Phase) -> float:
    return phase.rate if phase.to is None else phase.to


def _poisson(rng: random.Random) -> Iterator[float]:
    return itertools.accumulate(rng.expovariate(1.0) for _ in itertools.count())

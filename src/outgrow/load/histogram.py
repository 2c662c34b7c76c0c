"""A histogram with a bounded relative error over any range: log-linear, as HdrHistogram's.

    value    0 ... 2047    exactly
             2048 ... 4095 in steps of 2, 4096 ... 8191 in steps of 4, and so on

Each doubling is cut into the same number of steps, so a percentile is as exact at 100 us as at 100 s.
Only steps that were hit take memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

BITS = 11
"""2**10 steps in each doubling: three significant digits."""

COARSE_BITS = 6
"""Within 3.2%: enough for a line in a plot, and small enough to keep one a second."""


class Histogram:
    """Counts of whole numbers from 0 on. `bits` sets the relative error: at most 2 ** (1 - bits)."""

    __slots__ = ("_bits", "_counts", "_half", "count", "maximum", "minimum", "total")

    def __init__(self, bits: int = BITS) -> None:
        self._bits = bits
        self._half = 1 << (bits - 1)
        self._counts: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.minimum = 0
        self.maximum = 0

    def record(self, value: int) -> None:
        """Count a value; one below 0 counts as 0."""
        value = max(value, 0)
        shift = value.bit_length() - self._bits
        step = value if shift <= 0 else shift * self._half + (value >> shift)
        counts = self._counts
        counts[step] = counts.get(step, 0) + 1
        if not self.count or value < self.minimum:
            self.minimum = value
        self.maximum = max(self.maximum, value)
        self.count += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Count all that the other has, of the same bits."""
        if other.count:
            self.minimum = min(self.minimum, other.minimum) if self.count else other.minimum
        self.maximum = max(self.maximum, other.maximum)
        self.count += other.count
        self.total += other.total
        for step, count in other._counts.items():
            self._counts[step] = self._counts.get(step, 0) + count

    @property
    def mean(self) -> float:
        """The mean, exactly; 0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """A value that this share of the values does not exceed, within the error; 0 of nothing."""
        return self.percentiles([percent])[0]

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """Several at once; `percents` rises."""
        found: list[int] = []
        reached = highest = 0
        steps = iter(self.steps())
        for percent in percents:
            wanted = percent / 100 * self.count
            while reached < wanted or (not reached and self.count):
                highest, count = next(steps)
                reached += count
            found.append(highest)
        return found

    def steps(self) -> Iterator[tuple[int, int]]:
        """(highest value, count) of each step that was hit, rising; the last ends at the maximum."""
        for step in sorted(self._counts):
            yield min(self._highest(step), self.maximum), self._counts[step]

    def _highest(self, step: int) -> int:
        if step < 2 * self._half:
            return step
        shift = step // self._half - 1
        return ((step - shift * self._half + 1) << shift) - 1


def curve(steps: Iterable[tuple[float, int]], count: int) -> Iterator[tuple[float, float]]:
    """(share of the values that are at most this, this) at each step."""
    reached = 0
    for highest, number in steps:
        reached += number
        yield reached / count, highest

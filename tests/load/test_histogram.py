"""The histogram's promise: bounded relative error, whatever the values."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from outgrow.load.histogram import BITS, COARSE_BITS, Histogram, curve

VALUES = st.lists(st.integers(0, 10**12), min_size=1, max_size=300)
BITS_USED = st.sampled_from([BITS, COARSE_BITS])
PERCENTS = [0.0, 25.0, 50.0, 90.0, 99.0, 99.9, 100.0]


def of(values: list[int], bits: int) -> Histogram:
    histogram = Histogram(bits)
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, BITS_USED)
def test_a_percentile_is_never_below_the_true_one_and_within_the_error(values: list[int], bits: int) -> None:
    histogram, ordered = of(values, bits), sorted(values)
    for percent, found in zip(PERCENTS, histogram.percentiles(PERCENTS), strict=True):
        true = ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)]
        assert true <= found <= true * (1 + 2.0 ** (1 - bits))


@given(VALUES)
def test_small_values_are_exact(values: list[int]) -> None:
    small = [value % (1 << BITS) for value in values]
    assert [highest for highest, _ in of(small, BITS).steps()] == sorted(set(small))


@given(VALUES, BITS_USED)
def test_count_mean_and_ends_are_exact(values: list[int], bits: int) -> None:
    histogram = of(values, bits)
    assert (histogram.count, histogram.minimum, histogram.maximum) == (len(values), min(values), max(values))
    assert histogram.mean == sum(values) / len(values)
    assert sum(count for _, count in histogram.steps()) == len(values)


@given(VALUES, VALUES, BITS_USED)
def test_adding_is_counting_both(first: list[int], second: list[int], bits: int) -> None:
    added = of(first, bits)
    added.add(of(second, bits))
    both = of(first + second, bits)
    assert list(added.steps()) == list(both.steps())
    assert (added.mean, added.minimum, added.maximum) == (both.mean, both.minimum, both.maximum)


def test_its_memory_is_bounded_by_the_steps_there_are() -> None:
    histogram = of(list(range(0, 3_600_000_000, 7_919)), COARSE_BITS)
    assert len(list(histogram.steps())) <= 32 * 32 + 32


def test_nothing_has_no_percentiles_and_a_negative_value_is_nought() -> None:
    assert Histogram().percentiles([50.0, 99.0]) == [0, 0]
    assert of([-5], BITS).maximum == 0


def test_the_curve_rises_to_one() -> None:
    assert list(curve(of([1, 1, 2, 9], BITS).steps(), 4)) == [(0.5, 1), (0.75, 2), (1.0, 9)]

"""When requests are meant to start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.load.profile import Phase
from outgrow.load.schedule import Arrivals, rate_at, requests, starts

RATES = st.floats(0, 200)
PHASES = st.lists(
    st.builds(
        lambda rate, to, duration: Phase(rate=rate, to=to, duration=duration),
        RATES,
        st.none() | RATES,
        st.floats(0.1, 5),
    ),
    min_size=1,
    max_size=4,
)
ARRIVALS = st.sampled_from(["constant", "poisson"])


@given(PHASES, ARRIVALS, st.integers(0, 2**32))
def test_starts_rise_and_stay_within_the_phases(phases: list[Phase], arrivals: Arrivals, seed: int) -> None:
    found = list(starts(phases, arrivals, seed))
    assert found == sorted(found)
    assert all(0 <= start <= sum(phase.duration for phase in phases) * 1.000001 for start in found)


@given(PHASES, st.floats(0.01, 0.99))
def test_constant_arrivals_follow_the_area_under_the_rate_at_every_moment(
    phases: list[Phase], share: float
) -> None:
    found = list(starts(phases, "constant", 1))
    moment, area, began = share * sum(phase.duration for phase in phases), 0.0, 0.0
    for phase in phases:
        within = min(max(moment - began, 0.0), phase.duration)
        part = Phase(rate=phase.rate, to=rate_at([phase], within * 0.999999999), duration=max(within, 1e-9))
        area += requests(part)
        began += phase.duration
    assert sum(start < moment for start in found) == pytest.approx(area, abs=1.01)


def test_a_constant_rate_has_equal_steps() -> None:
    assert list(starts([Phase(rate=4, duration=1.0)], "constant", 1)) == [0.0, 0.25, 0.5, 0.75]


def test_a_ramp_is_denser_where_the_rate_is_higher() -> None:
    found = list(starts([Phase(rate=0, to=100, duration=10.0)], "constant", 1))
    assert len(found) == 500
    assert sum(start < 5 for start in found) == 125


def test_phases_follow_each_other() -> None:
    found = list(starts([Phase(rate=10, duration=1.0), Phase(rate=100, duration=1.0)], "constant", 1))
    assert (len(found), sum(start < 1 for start in found)) == (110, 10)


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_users() -> None:
    found = list(starts([Phase(rate=100, duration=200.0)], "poisson", 7))
    counts = [0] * 200
    for start in found:
        counts[int(start)] += 1
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert mean == pytest.approx(100, rel=0.05)
    assert variance == pytest.approx(mean, rel=0.35)


def test_the_seed_decides() -> None:
    phases = [Phase(rate=50, duration=2.0)]
    assert list(starts(phases, "poisson", 1)) == list(starts(phases, "poisson", 1))
    assert list(starts(phases, "poisson", 1)) != list(starts(phases, "poisson", 2))


def test_the_rate_at_a_moment() -> None:
    phases = [Phase(rate=10, to=30, duration=10.0), Phase(rate=5, duration=1.0)]
    assert [rate_at(phases, second) for second in (0, 5, 10.5, 11, 99)] == [10, 20, 5, 0, 0]

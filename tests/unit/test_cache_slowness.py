"""Which servers are too slow to be asked, and when a breaker lets somebody try again."""

from __future__ import annotations

import pytest

from outgrow.runtime.breaker import Breaker
from outgrow.runtime.cache.slowness import LOOKS, Slowness


def judged(*looks: tuple[float, float]) -> bool:
    """By these looks over and over: how long the oldest question waits, how late the look is."""
    slowness = Slowness()
    return any(slowness.look(*looks[number % len(looks)]) for number in range(2 * LOOKS))


@pytest.mark.parametrize(
    ("looks", "slow"),
    [
        ([(0.0005, 0.0)], False),
        ([(0.04, 0.0)], False),
        ([(0.1, 0.0)], True),
        ([(0.4, 0.0), (0.0, 0.0)], True),
        ([(0.4, 0.0), (0.0, 0.0), (0.0, 0.0)], False),  # a pause now and then
        ([(0.15, 0.0), (0.15, 0.1)], False),  # the process itself is that busy
        ([(0.4, 0.0), (0.4, 0.1)], True),
    ],
)
def test_it_is_judged_by_how_often_somebody_waits_long(looks: list[tuple[float, float]], slow: bool) -> None:
    assert judged(*looks) is slow


def test_it_is_not_judged_by_less_than_a_second() -> None:
    slowness = Slowness()
    assert [slowness.look(0.4, 0.0) for _ in range(LOOKS)] == [False] * (LOOKS - 1) + [True]


def test_a_breaker_rests_longer_each_time_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    made = Breaker(2, 4.0)
    made.failed()
    assert (made.open, made.rest_s) == (False, 0.0)
    rests = []
    for _ in range(4):
        made.failed()
        rests.append(made.rest_s)
    assert rests == [1.0, 2.0, 4.0, 4.0]
    now[0] += 4.0
    assert (made.open, made.rest_s) == (True, 0.0), "somebody may try"
    made.worked()
    assert not made.open

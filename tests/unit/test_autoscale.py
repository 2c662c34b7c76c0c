"""The policy of autoscaling, in simulated time: a plant with load, servers that take time to start, noise."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from outgrow.cluster.autoscale import Autoscaler, Decision, Load, Look, demands
from outgrow.topology import Topology, parse
from outgrow.topology.model import Autoscale


def settings(text: str) -> Autoscale:
    return parse(f"[autoscale]\n{text}").autoscale


def look(*cpu: float | None, at: float = 0.0, p95: float | None = None) -> Look:
    servers = {f"app-{n}": Load() if c is None else Load(c, 1.0) for n, c in enumerate(cpu, 1)}
    return Look(at, servers, p95)


class Plant:
    """Servers that share a load, looked at once a second. `load` is in cores; a new one needs `start_s`."""

    def __init__(
        self, text: str, load: Callable[[float], float], *, count: int = 1, start_s: int = 0
    ) -> None:
        self.policy = Autoscaler(settings(text))
        self.load = load
        self.count = count
        self.noise: Callable[[], float] = lambda: 0.0
        self.decisions: list[tuple[float, Decision]] = []
        self.history: list[int] = []
        self._start_s = start_s
        self._busy_until = 0.0
        self._coming = 0
        self.at = 0.0

    def run(self, seconds: int) -> list[int]:
        for _ in range(seconds):
            self.at += 1.0
            self._turn()
            self.history.append(self.count)
        return self.history[-seconds:]

    def _turn(self) -> None:
        if self.at < self._busy_until:
            return  # the servers that were asked for are starting, and whoever asked waits for them
        if self._coming:
            self.policy.scaled(self.at, self.count, self._coming)
            self.count, self._coming = self._coming, 0
        each = min(1.0, max(0.0, self.load(self.at) / self.count + self.noise()))
        decision = self.policy.decide(look(*[each] * self.count, at=self.at))
        if decision.wanted != self.count:
            self.decisions.append((self.at, decision))
            self._coming = decision.wanted
            self._busy_until = self.at + (self._start_s if decision.wanted > self.count else 0)
            if not self._start_s:
                self.policy.scaled(self.at, self.count, self._coming)
                self.count, self._coming = self._coming, 0


BASE = "cpu = 0.5\nin_window = 60\ncool_down = 10\nstep = 2\nmaximum = 8\n"


def test_off_without_a_target() -> None:
    assert not Topology().autoscale.on and settings("p95 = 1").on and settings("in_flight = 3").on


def test_a_step_up_and_down() -> None:
    plant = Plant(BASE, lambda at: 2.0 if 10 <= at < 100 else 0.4)
    assert set(plant.run(9)) == {1}
    up = plant.run(91)
    # At first it sees a full core, which is twice its target; then it knows more.
    assert up[0] == 2 and up[:30] == sorted(up[:30]) and set(up[25:]) == {4}
    down = plant.run(100)
    assert set(down[:57]) == {4}, "nothing goes within the window"
    assert down == sorted(down, reverse=True) and down[-1] == 1
    assert max(a - b for a, b in pairwise(down)) <= 2, "a step at most"
    assert all("CPU" in decision.reason and "50%" in decision.reason for _, decision in plant.decisions)


def test_a_ramp_is_followed() -> None:
    plant = Plant(BASE, lambda at: 0.4 + at / 100)
    counts = plant.run(300)
    assert counts == sorted(counts) and counts[-1] >= 7
    for at, count in enumerate(counts[20:], 20):
        assert (0.4 + at / 100) / count < 0.9, "it never falls far behind"


def test_a_spike_shorter_than_the_window_for_scaling_out_changes_nothing() -> None:
    plant = Plant(BASE + "out_window = 10\n", lambda at: 3.0 if 20 <= at < 26 else 0.4)
    assert set(plant.run(100)) == {1}
    plant = Plant(BASE + "out_window = 10\n", lambda at: 0.9 if at >= 20 else 0.4)
    counts = plant.run(60)
    assert set(counts[:29]) == {1} and counts[30] == 2


def test_after_a_spike_the_servers_stay_for_the_window() -> None:
    plant = Plant(BASE, lambda at: 0.9 if 20 <= at < 23 else 0.4)
    counts = plant.run(120)
    assert counts[19:21] == [2, 2] and counts[75] == 2 and counts[-1] == 1
    assert len(plant.decisions) == 2


@pytest.mark.parametrize("seed", range(5))
def test_noise_around_the_target_changes_nothing(seed: int) -> None:
    rolled = random.Random(seed)
    plant = Plant(BASE, lambda at: 2.0, count=4)
    plant.noise = lambda: rolled.uniform(-0.05, 0.05)
    assert set(plant.run(600)) == {4}


@pytest.mark.parametrize("seed", range(5))
def test_noise_beyond_the_tolerance_does_not_flap(seed: int) -> None:
    rolled = random.Random(seed)
    plant = Plant(BASE, lambda at: 2.0, count=4)
    plant.noise = lambda: rolled.uniform(-0.15, 0.15)
    plant.run(1800)
    assert len(plant.decisions) <= 4, "half an hour"
    assert plant.history[-1] in (4, 5, 6)


def test_servers_that_start_slowly_are_not_asked_for_twice() -> None:
    plant = Plant(BASE, lambda at: 0.9 if at >= 10 else 0.4, start_s=40)
    counts = plant.run(200)
    assert max(counts) == 2 and len(plant.decisions) == 1


def test_one_that_has_just_started_counts_nothing_and_holds_the_others() -> None:
    policy = Autoscaler(settings("cpu = 0.5\nin_window = 1\ncool_down = 1"))
    busy = policy.decide(look(0.9, None, at=1))
    assert busy.wanted == 2, "the new one will take its part"
    assert policy.decide(look(0.9, 0.9, None, at=3)).wanted == 4
    for at in range(5, 60):
        idle = policy.decide(look(0.01, 0.01, 0.01, None, at=at))
        assert idle.wanted == 4 and "not known" in idle.reason
    assert policy.decide(look(0.01, 0.01, 0.01, 0.01, at=62)).wanted == 1


def test_lost_figures_change_nothing() -> None:
    plant = Autoscaler(settings(BASE))
    for at in range(1000):
        decision = plant.decide(look(None, None, None, at=at))
        assert decision.wanted == 3 and "not known" in decision.reason
    some = Autoscaler(settings("p95 = 1\nin_window = 1"))
    assert {some.decide(look(None, None, at=at)).wanted for at in range(100)} == {2}


def test_a_missing_figure_of_one_target_does_not_stop_another_that_wants_more() -> None:
    policy = Autoscaler(settings("cpu = 0.5\nin_flight = 10\nin_window = 1"))
    servers = {"app-1": Load(None, 25.0), "app-2": Load(None, 25.0)}
    assert policy.decide(Look(1, servers)).wanted == 5
    servers = {"app-1": Load(None, 1.0), "app-2": Load(None, 1.0)}
    assert [policy.decide(Look(at, servers)).wanted for at in range(10, 20)] == [2] * 10


def test_the_largest_demand_wins() -> None:
    found = demands(settings("cpu = 0.5\nin_flight = 4\np95 = 0.1"), look(0.5, 0.5, p95=0.25))
    assert [each.wanted for each in found] == [2, 1, 5]
    policy = Autoscaler(settings("cpu = 0.5\nin_flight = 4\np95 = 0.1"))
    decision = policy.decide(look(0.5, 0.5, p95=0.25))
    assert decision == (5, "p95 250 ms of a target of 100 ms")


def test_minimum_and_maximum() -> None:
    policy = Autoscaler(settings("cpu = 0.5\nminimum = 2\nmaximum = 4\nin_window = 1\ncool_down = 1"))
    assert policy.decide(look(0.1, at=0)).wanted == 2, "at once, whatever the figures"
    assert policy.decide(look(*[0.9] * 7, at=1)).wanted == 4
    full = policy.decide(look(*[0.99] * 4, at=2))
    assert full.wanted == 4 and "beyond the maximum" in full.reason
    assert {policy.decide(look(0.01, 0.01, at=at)).wanted for at in range(10, 60)} == {2}


def test_a_step_within_a_cool_down_together() -> None:
    plant = Plant("cpu = 0.5\ncool_down = 30\nstep = 3\nmaximum = 20\nin_window = 1", lambda at: 9.0)
    counts = plant.run(100)
    for start in range(70):
        assert counts[start + 29] - counts[start] <= 3
    assert counts[-1] >= 10


loads = st.floats(0.0, 12.0)
texts = st.builds(
    "cpu = {:.2f}\nin_window = {}\nout_window = {}\ncool_down = {}\n"
    "step = {}\nminimum = {}\nmaximum = {}".format,
    st.floats(0.2, 0.8),
    st.integers(1, 120),
    st.integers(1, 30),
    st.integers(1, 60),
    st.integers(1, 10),
    st.integers(1, 5),
    st.integers(5, 30),
)


@how(deadline=None)
@given(texts, st.lists(loads, min_size=1, max_size=8), st.integers(1, 30), st.integers(0, 20))
def test_within_bounds_and_nothing_goes_above_the_target(
    text: str, steps: list[float], count: int, start_s: int
) -> None:
    plant = Plant(text, lambda at: steps[int(at // 40) % len(steps)], count=count, start_s=start_s)
    given_ = plant.policy.settings
    plant.run(320)
    for at, decision in plant.decisions:
        assert given_.minimum <= decision.wanted <= given_.maximum
        before = plant.history[int(at) - 2] if at > 1 else count
        busy = plant.load(at) / before
        assert given_.cpu is not None
        if decision.wanted < before <= given_.maximum:
            assert busy <= given_.cpu
            assert decision.wanted >= plant.load(at) / given_.cpu - 1e-6, "what stays can bear it"


@how(deadline=None)
@given(texts, loads, st.integers(1, 30), st.integers(0, 10))
def test_constant_load_comes_to_rest_where_the_target_is_met(
    text: str, load: float, count: int, start_s: int
) -> None:
    plant = Plant(text, lambda at: load, count=count, start_s=start_s)
    plant.run(3000)
    assert len(set(plant.history[-500:])) == 1
    given_, rest = plant.policy.settings, plant.history[-1]
    assert given_.cpu is not None
    if rest < given_.maximum:
        assert load / rest <= given_.cpu * (1 + given_.tolerance) + 1e-6
    if rest > given_.minimum:
        assert load / (rest - 1) > given_.cpu * (1 - given_.tolerance) - 1e-6


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=10), st.integers(0, 9))
def test_a_lost_figure_never_takes_a_server_away(cpu: list[float | None], lost: int) -> None:
    lost %= len(cpu)
    policy = Autoscaler(settings("cpu = 0.5\nin_window = 1\ncool_down = 1\nmaximum = 10"))
    figures = [None if number == lost else value for number, value in enumerate(cpu)]
    for at in range(0, 30, 3):
        assert policy.decide(look(*figures, at=at)).wanted >= len(cpu)

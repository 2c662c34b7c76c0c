"""From latencies to weights: what is proven counts, and nothing else."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.engines.envoy.latency import MARK, WEIGHT_MIN, Latencies, Reader

POOL = ("a", "b", "c", "d")


class Simulation:
    """Each server gets requests by its weight, in turns of a tenth of a second."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self._draw = random.Random(5)
        self._now = 0.0

    def run(self, seconds: float, **slower: float) -> dict[str, float]:
        """For so long at 200 requests a second; returns the weights then."""
        for _ in range(round(seconds * 10)):
            self._now += 0.1
            self.latencies.fade(self._now)
            weights = self.latencies.weights(POOL)
            for server in self._draw.choices(POOL, [weights[each] for each in POOL], k=20):
                cost = self._draw.lognormvariate(0, 0.5)
                self.latencies.note(server, 0.01 * slower.get(server, 1.0) * cost)
        return self.latencies.weights(POOL)


def test_equal_servers_keep_equal_weights() -> None:
    simulation = Simulation()
    lowest = [min(simulation.run(0.5).values()) for _ in range(50)]
    assert sum(lowest) / len(lowest) > 0.95


def test_a_slow_server_is_found_within_two_seconds_and_taken_back() -> None:
    simulation = Simulation()
    simulation.run(5)
    weights = simulation.run(2, b=5.0)
    assert weights["b"] < 0.1 and min(weights[each] for each in "acd") > 0.5
    assert simulation.run(20, b=5.0)["b"] < 0.1
    assert simulation.run(6)["b"] > 0.5


def test_without_measurements_all_are_equal() -> None:
    latencies = Latencies()
    assert latencies.weights(POOL) == dict.fromkeys(POOL, 1.0)
    for _ in range(100):
        latencies.note("a", 5.0)
    assert latencies.weights(POOL) == dict.fromkeys(POOL, 1.0), "slow compared to what?"
    latencies.keep(["b"])
    assert latencies.weights(POOL)["a"] == 1.0


def test_an_error_is_no_fast_answer() -> None:
    latencies = Latencies()
    for _ in range(50):
        latencies.note("a", 0.0001, failed=True)
        latencies.note("b", 0.05)
    weights = latencies.weights(("a", "b"))
    assert weights["a"] < 0.01 and weights["b"] == 1.0


@given(st.lists(st.tuples(st.sampled_from(POOL), st.floats(0, 1e6), st.booleans()), max_size=60))
def test_weights_are_weights(noted: list[tuple[str, float, bool]]) -> None:
    latencies = Latencies()
    for number, (server, seconds, failed) in enumerate(noted):
        latencies.note(server, seconds, failed=failed)
        latencies.fade(number * 0.3)
    weights = latencies.weights(POOL)
    assert set(weights) == set(POOL) and all(WEIGHT_MIN <= each <= 1.0 for each in weights.values())
    assert max(weights.values()) == 1.0


def message(count: int) -> bytes:
    record = {"server": "127.0.0.1:8000", "status": 200, "us": 900}
    return msgspec.msgpack.encode(["latency", [[1, record]] * count])


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.data())
def test_a_stream_may_be_cut_anywhere(counts: list[int], data: st.DataObject) -> None:
    stream, reader, found = b"".join(map(message, counts)), Reader(), 0
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += len(reader.feed(stream[:size]))
        stream = stream[size:]
    assert found == sum(counts)


def test_another_stream_is_refused() -> None:
    assert message(1).startswith(MARK)
    with pytest.raises(msgspec.DecodeError):
        Reader().feed(b"GET / HTTP/1.1")

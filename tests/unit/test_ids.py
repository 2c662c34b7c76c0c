"""Ids are unique, ordered, and carry their time, whatever the clock does."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.runtime import ids
from outgrow.runtime.ids import Ids, created_ms


@given(st.lists(st.integers(1_800_000_000_000, 1_800_000_000_050), min_size=1, max_size=200))
def test_ids_only_grow_even_when_the_clock_goes_back(clock_ms: list[int]) -> None:
    ticks = iter(clock_ms)
    generator = Ids(worker=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("outgrow.runtime.ids.time.time", lambda: next(ticks) / 1000)
        made = [generator.next() for _ in clock_ms]
    assert made == sorted(set(made))


def test_more_than_4096_ids_in_one_millisecond_stay_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outgrow.runtime.ids.time.time", lambda: 1_800_000_000.0)
    generator = Ids(worker=1023)
    made = [generator.next() for _ in range(10_000)]
    assert len(set(made)) == 10_000
    assert max(made) < 2**63


def test_an_id_tells_when_it_was_made() -> None:
    before = int(time.time() * 1000)
    assert before <= created_ms(Ids(worker=3).next()) <= int(time.time() * 1000)


def test_two_workers_never_make_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outgrow.runtime.ids.time.time", lambda: 1_800_000_000.0)
    one, other = Ids(worker=1), Ids(worker=2)
    assert not {one.next() for _ in range(5000)} & {other.next() for _ in range(5000)}


def test_the_worker_number_comes_from_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGROW_WORKER", "5")
    assert Ids().next() >> ids.COUNTER_BITS & 0x3FF == 5
    with pytest.raises(ValueError, match="1023"):
        Ids(worker=1024)

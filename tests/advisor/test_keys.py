"""The hot keys of several processes, as one."""

from __future__ import annotations

import msgspec
import pytest

from outgrow.advisor import keys
from outgrow.advisor.keys import Key
from outgrow.runtime.cache.hot import HotKey


def told(*hot: HotKey) -> list[keys.Told]:
    return keys.read(msgspec.json.encode(hot))


def test_processes_are_summed_and_the_most_read_comes_first() -> None:
    one = told(HotKey("a", 30.0, 0.3, True), HotKey("b", 20.0, 0.2, False))
    other = told(HotKey("b", 60.0, 0.6, True), HotKey("c", 10.0, 0.1, False))
    first, second = keys.hottest([one, other, []], 2)
    assert (first.key, first.rate, first.kept) == ("b", 80.0, 1)
    assert first.share == pytest.approx(0.4)
    assert second == Key("a", 30.0, second.share, 1)
    assert second.share == pytest.approx(0.15)


def test_without_a_read_none_is_known() -> None:
    assert keys.hottest([], 10) == keys.hottest([[], []], 10) == []

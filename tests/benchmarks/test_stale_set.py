"""The race that the benchmark forces is one: who keeps by hand loses it every time."""

from __future__ import annotations

import pytest

from benchmarks import stale_set
from benchmarks.races import ByHand, Ours
from outgrow.runtime.cache import shared


def test_the_old_value_stays_for_others_and_never_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "GRACE_S", shared.GRACE_S)  # as it was, afterwards
    monkeypatch.setattr(stale_set, "QUICK", 2)
    monkeypatch.setattr(stale_set, "ways", lambda server, url: iter([Ours(server), ByHand(url)]))
    text = stale_set.run(quick=True)
    assert "| **`og.cache`** | `invalidate` in the transaction | 0 of 2 | 0 of 2 |" in text
    assert "| redis-py, by hand | `DEL` | 2 of 2 | 2 of 2 |" in text

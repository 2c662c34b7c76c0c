"""Each algorithm does what its name says, with servers that are equal, unequal and slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.balancing import balanced, load


async def test_round_robin_gives_each_the_same(tmp_path: Path) -> None:
    async with balanced(tmp_path) as it, load(it) as clients:
        it["app-1"].seconds = 0.05
        await clients.many(600)
        assert not clients.failed
        assert list(it.shares().values()) == pytest.approx([1 / 3] * 3, abs=0.01)

"""What the application stands on is there while its tests run."""

from __future__ import annotations

import pytest

from tests.example.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_tier_is_in_order(world: World) -> None:
    report = await world.og.health.deep()
    assert [each for each in report.checks if not each.ok] == []

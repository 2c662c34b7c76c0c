"""The shared cache has room for nothing: what is said about tags it takes nevertheless."""

from __future__ import annotations

from outgrow.chaos.cache import CacheDrill, filled
from outgrow.chaos.scene import Scene
from outgrow.engines.redis.cache import NAME

FULL_FOR_S = 6.0
EMPTY_FOR_S = 2.0


class CacheFull(CacheDrill):
    """Processes keep what they have in memory, and hear of each other's writes."""

    name = "cache-full"
    shows = "the shared cache is full, and may throw nothing away"
    does = f"fills Redis with keys that have no time to live, for {FULL_FOR_S:g} s: it refuses every value"

    async def run(self, scene: Scene) -> None:
        """It is full, then has room again."""
        async with scene.fault(filled(scene), NAME):
            await scene.rest(FULL_FOR_S)
        await scene.rest(EMPTY_FOR_S)

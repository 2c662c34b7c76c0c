"""The shared cache answers, and takes its time: processes do without it until it is quick again."""

from __future__ import annotations

from outgrow.chaos.cache import WATCHED_S, CacheDrill, all_of_it
from outgrow.chaos.faults.slow import Slow
from outgrow.chaos.scene import Scene
from outgrow.engines.redis.cache import NAME

SLOW_FOR_S = 7.0
PERIOD_S = 0.45
SHARE = 0.1
"""It stands still for 0.4 s at a time: less than what is taken for a loss."""


class CacheSlow(CacheDrill):
    """One that is slow is worse than one that hangs: nobody gives it up, and everybody waits each time."""

    name = "cache-slow"
    shows = "the shared cache answers after up to 0.4 s"
    does = f"gives Redis a tenth of each {PERIOD_S:g} s, for {SLOW_FOR_S:g} s"

    async def run(self, scene: Scene) -> None:
        """It is slow, then quick again."""
        async with scene.fault(Slow(NAME, await all_of_it(scene), SHARE, PERIOD_S), NAME):
            await scene.rest(SLOW_FOR_S)
        await scene.rest(WATCHED_S)

"""The shared cache dies and begins anew, empty: what was noted of it is gone, and nobody may see the past."""

from __future__ import annotations

from outgrow.chaos.cache import BACK_WITHIN_S, WATCHED_S, CacheDrill
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.scene import Scene
from outgrow.engines.redis.cache import NAME

TIMES = 3


class CacheRestart(CacheDrill):
    """Processes load what they need, and trust nothing that they had."""

    name = "cache-restart"
    shows = "the shared cache begins anew, empty"
    does = f"SIGKILL of Redis, {TIMES} times (--events), each time when it is back"

    async def run(self, scene: Scene) -> None:
        """Kill it, wait until it is back, let the cache fill again."""
        for _ in range(scene.events(TIMES)):
            processes = await scene.processes(NAME)
            async with scene.fault(Kill(NAME, processes), NAME):
                await scene.until_ready(NAME, processes[0].pid, BACK_WITHIN_S)
            await scene.rest(WATCHED_S)

"""The shared cache dies and begins anew, empty: what was noted of it is gone, and nobody may see the past."""

from __future__ import annotations

from itertools import cycle, islice

from outgrow.chaos.cache import BACK_WITHIN_S, WATCHED_S, CacheDrill
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.scene import Scene
from outgrow.engines.redis.cache import NAME, names

TIMES = 3


class CacheRestart(CacheDrill):
    """Processes load what they need, and trust nothing that they had."""

    name = "cache-restart"
    shows = "the shared cache begins anew, empty"
    does = f"SIGKILL of Redis, {TIMES} times (--events), each time when it is back; of its nodes in turn"

    async def run(self, scene: Scene) -> None:
        """Kill it, wait until it is back, let the cache fill again."""
        for name in islice(cycle(names(scene.topology)), scene.events(TIMES)):
            processes = await scene.processes(name)
            async with scene.fault(Kill(name, processes), NAME):
                await scene.until_ready(name, processes[0].pid, BACK_WITHIN_S)
            await scene.rest(WATCHED_S)

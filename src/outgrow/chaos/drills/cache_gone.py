"""The shared cache answers nothing for a while, then dies: processes go on without it, and come back."""

from __future__ import annotations

from outgrow.chaos.cache import BACK_WITHIN_S, WATCHED_S, CacheDrill, all_of_it
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.faults.pause import Pause
from outgrow.chaos.scene import Scene
from outgrow.engines.redis.cache import NAME, names

GONE_FOR_S = 6.0


class CacheGone(CacheDrill):
    """One that hangs is worse than one that is dead: it refuses nothing, and everybody waits."""

    name = "cache-gone"
    shows = "the shared cache hangs, and then is lost"
    does = f"SIGSTOP of Redis for {GONE_FOR_S:g} s, then SIGKILL: it comes back empty"

    async def run(self, scene: Scene) -> None:
        """What is written meanwhile it does not hear of."""
        processes = await all_of_it(scene)
        async with scene.fault(Pause(NAME, processes), NAME):
            await scene.rest(GONE_FOR_S)
            async with scene.fault(Kill(NAME, processes), NAME):
                for name, before in zip(names(scene.topology), processes, strict=True):
                    await scene.until_ready(name, before.pid, BACK_WITHIN_S)
        await scene.rest(WATCHED_S)

"""The shared cache dies and begins anew, empty: what was noted of it is gone, and nobody may see the past."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos.cache import BACK_WITHIN_S, WATCHED_S, nobody_notices, shared_cache
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.engines.redis.cache import NAME
from outgrow.topology import Topology

TIMES = 3


class CacheRestart:
    """Processes load what they need, and trust nothing that they had."""

    name = "cache-restart"
    shows = "the shared cache begins anew, empty"
    needs = "stage 6, with the fleet's own Redis for the cache"
    does = f"SIGKILL of Redis, {TIMES} times (--events), each time when it is back"

    def refuses(self, topology: Topology) -> str | None:
        return shared_cache(topology)

    async def run(self, scene: Scene) -> None:
        """Kill it, wait until it is back, let the cache fill again."""
        for _ in range(scene.events(TIMES)):
            processes = await scene.processes(NAME)
            async with scene.fault(Kill(NAME, processes), NAME):
                await scene.until_ready(NAME, processes[0].pid, BACK_WITHIN_S)
            await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Nothing fails, and nobody sees the past."""
        yield from nobody_notices(history)

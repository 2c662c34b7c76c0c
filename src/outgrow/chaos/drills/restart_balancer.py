"""The load balancer itself: it dies, and it is restarted on purpose."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

BALANCER, STANDBY = "balancer-1", "balancer-2"
PROBE = "health at the standby"
BACK_WITHIN_S = 30.0
SERVES_WITHIN_S = 5.0
BETWEEN_S = 4.0


class RestartBalancer:
    """Clients of one balancer see a gap; its standby, which has an address of its own, serves throughout."""

    name = "restart-balancer"
    shows = "the balancer dies, and is restarted as for an upgrade"
    needs = "stage 3 or 4; with copies = 2 it also shows that the standby serves"
    does = "SIGKILL of balancer-1, later SIGTERM of it; with a standby, asks that one all the while"

    def refuses(self, topology: Topology) -> str | None:
        return None if topology.balancer.engine is not None else "a balancer: `outgrow grow scale-out`"

    async def run(self, scene: Scene) -> None:
        """Kill it, let it come back, restart it, let it come back."""
        probing = asyncio.ensure_future(self._probe(scene))
        try:
            for number in (signal.SIGKILL, signal.SIGTERM):
                processes = await scene.processes(BALANCER)
                async with scene.fault(Kill(BALANCER, processes, number), BALANCER):
                    await scene.until_ready(BALANCER, processes[0].pid, BACK_WITHIN_S)
                await scene.rest(BETWEEN_S)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _probe(self, scene: Scene) -> None:
        addresses = {each.name: each.address for each in await scene.nodes("balancer")}
        if STANDBY in addresses:
            await scene.probe(f"http://{addresses[STANDBY]}", PROBE)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """How long the gap is, that it ends, and that nothing which was acknowledged is lost."""
        killed, restarted = history.moments("fault")
        load = history.without(PROBE)
        yield verdict.serves_again(
            load.until(restarted),
            killed,
            within_s=SERVES_WITHIN_S,
            promise=f"Killed, it serves again within {SERVES_WITHIN_S:g} s.",
        )
        yield verdict.serves_again(
            load,
            restarted,
            within_s=SERVES_WITHIN_S,
            promise=f"Restarted, it serves again within {SERVES_WITHIN_S:g} s.",
        )
        if topology.balancer.copies == 2:
            yield verdict.reads(history.only(PROBE), "The standby serves throughout.")
        yield from nothing_is_lost(history)

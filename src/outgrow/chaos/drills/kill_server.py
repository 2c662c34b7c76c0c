"""kill -9 of one application server of several."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost, several_servers
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

BACK_WITHIN_S = 30.0
NORMAL_WITHIN_S = 2.0
WATCHED_S = 6.0
UNNOTICED_S = 0.25
"""What is sent to a dead server until the kernel has told the balancer that its connections are closed."""


class KillServer:
    """Its processes die at once; the supervisor starts them again."""

    name = "kill-server"
    shows = "one server of several dies, as by the out-of-memory killer"
    needs = "stage 4 and at least two application servers"
    does = "SIGKILL of every process of one server"

    def refuses(self, topology: Topology) -> str | None:
        return several_servers(topology)

    async def run(self, scene: Scene) -> None:
        """Kill the last server, wait until it is back."""
        server = (await scene.servers())[-1]
        processes = await scene.processes(server)
        async with scene.fault(Kill(server, processes), server):
            await scene.until_ready(server, processes[0].pid, BACK_WITHIN_S)
        await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Reads survive, writes under way fail and are not repeated, and it is soon as before."""
        (fault,), server = history.moments("fault"), history.first("fault").node
        yield verdict.reads(history)
        yield verdict.writes(history, server=server, grace_s=UNNOTICED_S)
        yield verdict.recovers(history, fault, within_s=NORMAL_WITHIN_S)
        yield from nothing_is_lost(history)

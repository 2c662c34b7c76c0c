"""A server hangs without dying."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import in_s, nothing_is_lost, out_s, several_servers
from outgrow.chaos.faults.pause import Pause
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

OUT_FOR_S = 5.0


class PauseServer:
    """It keeps its connections and answers nothing; later it goes on."""

    name = "pause-server"
    shows = "a server hangs without dying: its port is open, and nothing answers"
    needs = "stage 4 and at least two application servers"
    does = "SIGSTOP of every process of one server until the health checks have it out, then SIGCONT"

    def refuses(self, topology: Topology) -> str | None:
        return several_servers(topology)

    async def run(self, scene: Scene) -> None:
        """Pause the last server, until it has been out for a while."""
        server = (await scene.servers())[-1]
        async with scene.fault(Pause(server, await scene.processes(server)), server):
            await scene.until_out(server, out_s(scene.topology))
            await scene.rest(max(OUT_FOR_S, scene.topology.balancer.attempt_timeout))
        await scene.until_in(server, in_s(scene.topology))

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """The health checks take it out, hanging reads go elsewhere, and it comes back."""
        fault = history.first("fault")
        (undone,), server = history.moments("undo"), fault.node
        out = history.moments("out", server)
        yield verdict.leaves(history, server, fault.at, within_s=out_s(topology))
        yield verdict.quiet(history, server, out[0] if out else undone, undone)
        yield verdict.reads(history, "No read fails: those that hung were answered by another server.")
        yield verdict.writes(
            history,
            "No write fails but those that were under way on the server while it hung.",
            server=server,
        )
        yield verdict.returns(history, server, undone, within_s=in_s(topology))
        yield from nothing_is_lost(history)

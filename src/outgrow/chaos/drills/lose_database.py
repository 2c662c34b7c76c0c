"""One server of several loses its database; the others keep theirs."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import in_s, nothing_is_lost, out_s, own_postgres, several_servers
from outgrow.chaos.faults.cut import Cut
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

OUT_FOR_S = 5.0


class LoseDatabase:
    """It answers, but can do nothing: worse than being down, unless the deep check sees it."""

    name = "lose-database"
    shows = "a server is up and has lost its database, while the others have theirs"
    needs = "stage 4, at least two application servers, the fleet's own PostgreSQL, deep health checks"
    does = "shuts down the connections of one server to PostgreSQL as often as it makes them"

    def refuses(self, topology: Topology) -> str | None:
        if topology.balancer.health.check != "deep" or topology.balancer.health.path is not None:
            return 'deep health checks: [balancer.health] check = "deep"'
        return several_servers(topology) or own_postgres(topology)

    async def run(self, scene: Scene) -> None:
        """Cut the last server off, until it has been out for a while."""
        server = (await scene.servers())[-1]
        addresses = await scene.addresses("database")
        cut = Cut(f"{server} loses its database", await scene.processes(server), addresses)
        async with scene.fault(cut, server):
            await scene.until_out(server, out_s(scene.topology))
            await scene.rest(OUT_FOR_S)
        await scene.until_in(server, in_s(scene.topology))

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """The deep check takes it out, and it returns by itself."""
        fault = history.first("fault")
        (undone,), server = history.moments("undo"), fault.node
        yield verdict.leaves(history, server, fault.at, within_s=out_s(topology))
        out = history.moments("out", server)
        yield verdict.quiet(history, server, out[0] if out else undone, undone)
        yield verdict.reads(history, "No read fails: another server answers those that this one cannot.")
        yield verdict.writes(
            history, "No write fails but on the server without a database, before it is out.", server=server
        )
        yield verdict.returns(history, server, undone, within_s=in_s(topology))
        yield from nothing_is_lost(history)

"""Every server dies once: who loses their session?"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost, several_servers
from outgrow.chaos.faults.kill import Kill
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.errors import Misuse
from outgrow.load.profile import Scenario, Setup
from outgrow.topology import Topology

SESSION = "a session asked for"
BACK_WITHIN_S = 30.0
BETWEEN_S = 3.0


class LoseSession:
    """With sessions in each process users lose theirs; with a store that servers share nobody notices."""

    name = "lose-session"
    shows = "whether users are logged out when servers die"
    needs = "stage 4, at least two application servers, [sessions], and [session] in the scenario"
    does = "SIGKILL of every server, one after the other; each is back before the next one dies"

    def refuses(self, topology: Topology) -> str | None:
        if topology.sessions.engine == "off":
            return 'sessions on the server: [sessions] engine = "database"'
        return several_servers(topology)

    def load(self, scenario: Scenario) -> Scenario:
        """Every user opens a session before the load, and asks for it now and then. Raises Misuse."""
        session = scenario.session
        if session is None:
            raise Misuse(
                f'the scenario "{scenario.name}" has no [session]: nobody would have one to lose',
                hint="docs/load.md shows its keys; examples/conduit/load.toml has them",
            )
        fields = {name: getattr(session.open, name) for name in session.open.__struct_fields__}
        opening = Setup(**fields, name="open a session", each="user")
        total = sum(each.weight for each in scenario.request.values())
        total += sum(each.weight for each in scenario.journey.values())
        asking = replace(session.check, weight=total * session.share / max(1 - session.share, 0.001))
        requests = {**scenario.request, SESSION: asking}
        return replace(scenario, setup=(*scenario.setup, opening), request=requests)

    async def run(self, scene: Scene) -> None:
        """Kill one after the other."""
        for server in await scene.servers():
            processes = await scene.processes(server)
            async with scene.fault(Kill(server, processes), server):
                await scene.until_ready(server, processes[0].pid, BACK_WITHIN_S)
            await scene.rest(BETWEEN_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Nobody is logged out, and nothing else that a user could notice happens."""
        yield verdict.sessions_kept(history, SESSION)
        others = history.without(SESSION)
        yield verdict.reads(others)
        yield from nothing_is_lost(others)

"""Servers come and go, again and again, under load."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost, several_servers
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology


class Scale:
    """One server more, one less, and so on: `--events` of them."""

    name = "scale"
    shows = "servers are added and removed continuously"
    needs = "stage 4 and at least two application servers"
    does = "adds a server and removes one in turn, ten times or as often as --events says"

    def refuses(self, topology: Topology) -> str | None:
        return several_servers(topology)

    async def run(self, scene: Scene) -> None:
        """Every event is a whole change of the fleet: ready before it serves, drained before it goes."""
        count = scene.topology.application.count
        async with scene.changed():
            for event in range(scene.events(10)):
                servers = count + (event + 1) % 2
                scene.watch.note("note", "fleet", f"event {event + 1}: {servers} servers")
                application = replace(scene.topology.application, servers=servers)
                await scene.become(replace(scene.topology, application=application))

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Nobody notices."""
        events = sum(each.kind == "note" and each.node == "fleet" for each in history.happenings)
        yield verdict.reads(history, f"No read fails in {events} events.")
        yield verdict.no_write_fails(history, f"No write fails in {events} events.")
        yield from nothing_is_lost(history)

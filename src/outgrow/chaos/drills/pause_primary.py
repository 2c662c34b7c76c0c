"""The primary's host hangs for longer than its lease, and wakes up when another has taken over."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import hosts
from outgrow.chaos.faults.pause import Pause
from outgrow.chaos.history import History
from outgrow.chaos.replicas import (
    LEASE_S,
    TAKEOVER_S,
    WATCHED_S,
    WHOLE_WITHIN_S,
    replicated,
    roles,
    taken_over,
    until_taken_over,
    until_whole,
)
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology


class PausePrimary:
    """It wakes up as the primary that it was, with open connections: no write may be lost by that."""

    name = "pause-primary"
    shows = "the primary hangs, another takes over, and the old one wakes up"
    needs = "stage 5, with the fleet's own PostgreSQL"
    does = "SIGSTOP of everything on the primary's host until another node is the primary, then SIGCONT"

    def refuses(self, topology: Topology) -> str | None:
        return replicated(topology)

    async def run(self, scene: Scene) -> None:
        """Nobody can prove that it is dead: the lease has to run out."""
        primary, _replicas = await roles(scene)
        pause = Pause(f"everything on {primary.name}", hosts.inside(primary))
        async with scene.fault(pause, primary.name):
            await until_taken_over(scene, primary.name, WHOLE_WITHIN_S)
            await scene.rest(WATCHED_S)
        await until_whole(scene, primary.name)
        await scene.rest(WATCHED_S)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Reads go on, writes wait for the lease, and what is acknowledged is there."""
        yield from taken_over(history, topology, within_s=LEASE_S + TAKEOVER_S)

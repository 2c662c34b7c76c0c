"""A rolling deploy: every server gets a new release, and then the one before again."""

from __future__ import annotations

from collections.abc import Iterator

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology


class Deploy:
    """The new release is a copy of the code that runs: what changes is every process."""

    name = "deploy"
    shows = "a new version comes, server by server, and the one before again"
    needs = "any stage, and a release of what runs, which `outgrow up` and `outgrow deploy` keep"
    does = "deploys a copy of the release that runs to every server, then goes back to that release"

    def refuses(self, topology: Topology) -> str | None:
        return None

    async def run(self, scene: Scene) -> None:
        """Forth, and back at the end of the block."""
        async with scene.another_release() as release:
            await scene.deploy(release.number, scene.topology)

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """It runs, and nobody notices."""
        yield verdict.released(
            history, "The new release runs on every server, and then the one before.", runs=2
        )
        yield verdict.reads(history)
        yield verdict.no_write_fails(history, "No write fails.")
        yield from nothing_is_lost(history)

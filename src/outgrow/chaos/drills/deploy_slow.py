"""A version whose answers are all right, and slow: no health check sees that, a comparison does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

SLOWER_S = 1.0
MODULE = "outgrow_drill_slow"
NORMAL_WITHIN_S = 2.0
CODE = '''"""The application, whose answers take a second more: a drill deploys it, to see it go again."""

import asyncio

from outgrow.runtime.loading import load

whole = load({app!r}, key="application.app")


async def app(scope, receive, send):
    async def later(message):
        # Within the application's own time, which is what the fleet compares.
        if message["type"] == "http.response.start":
            await asyncio.sleep({seconds!r})
        await send(message)

    slow = scope["type"] == "http" and not scope["path"].startswith(("/health", "/metrics"))
    await whole(scope, receive, later if slow else send)
'''


class DeploySlow:
    """The canary has its share of the requests of one server, until the fleet has compared enough of them."""

    name = "deploy-slow"
    shows = "a new version is healthy, answers everything rightly, and takes a second longer"
    needs = "as `deploy`; and enough load that the new version answers 5 requests within [deploy] watch"
    does = "deploys a copy of the release that runs, each request of which takes a second more"

    def refuses(self, topology: Topology) -> str | None:
        return None

    async def run(self, scene: Scene) -> None:
        """The fleet has to find it out itself."""
        async with scene.another_release() as release:
            await asyncio.to_thread(_slow_down, release.folder, scene.topology.application.app)
            application = replace(scene.topology.application, app=f"{MODULE}:app")
            await scene.deploy(release.number, replace(scene.topology, application=application))

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """It goes, no request fails, and p99 is as before."""
        yield verdict.released(history, "The slow version goes again by itself.", runs=0, because="is slow")
        yield verdict.reads(history)
        yield verdict.no_write_fails(history, "No write fails.")
        ended = max(history.moments("note", verdict.RELEASE), default=history.ended)
        yield verdict.recovers(
            history,
            ended,
            within_s=NORMAL_WITHIN_S,
            promise=f"p99 is back to normal within {NORMAL_WITHIN_S:g} s of its end.",
        )
        yield from nothing_is_lost(history)


def _slow_down(folder: Path, app: str) -> None:
    (folder / f"{MODULE}.py").write_text(CODE.format(app=app, seconds=SLOWER_S), encoding="utf-8")

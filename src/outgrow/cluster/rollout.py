"""A new version of the application, server by server, while it serves.

    migrations ─► for each server:  old | new started beside it, on the same address, without a connection
                                    old | new ready, /health/deep good for a moment
                     the first one: old + new share its connections, and are compared (the canary)
                                    new | old gets no new connection, drains, ends
    a new one is not good enough ─► it goes; servers that have been replaced get the old version again

All of it happens in the fleet: a command that is killed meanwhile changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from outgrow.cluster import figures, plan
from outgrow.cluster.figures import Figures
from outgrow.cluster.front import Front
from outgrow.engines import Placement
from outgrow.errors import FleetError, Misuse, NodeFailed, OutgrowError
from outgrow.supervisor import handover
from outgrow.supervisor.node import Node
from outgrow.supervisor.probe import http_status
from outgrow.supervisor.supervisor import Supervisor
from outgrow.topology import Topology
from outgrow.topology.diff import diff
from outgrow.topology.model import Deploy
from outgrow.workload import Workload

STEADY_S = 1.0
"""The deep health of a new server must be good for so long before it gets its first connection."""

LOOK_EVERY_S = 0.25
ANSWER_WITHIN_S = 2.0
FAILED_MIN = 3
"""One wrong answer may be anybody's; three are a sign."""

SLOWER_S_MIN = 0.05
COMPARED_MIN = 20
"""Fewer requests say nothing of how long the slowest take."""

FEW_MIN = 5
"""But a version that is very slow answers few: half of so many, at least, must be slower than all but a
twentieth of the old version's."""

BEFORE = ".old"
MAY_CHANGE = ("application.app", "application.environment", "application.migrations", "application.seed")


class Version(NamedTuple):
    """What the application's processes run: with these settings, this code."""

    topology: Topology
    place: Placement


def deployed(running: Topology, wanted: Topology) -> Topology:
    """The running topology with the application's own settings of another. Raises Misuse for more.

    How many servers there are is not compared: the autoscaler may have changed it.
    """
    taken = (*MAY_CHANGE, "application.secret", "application.servers", "application.port", "stage")
    others = [
        change.path
        for change in diff(running, wanted)
        if change.path not in taken and not change.path.startswith(("autoscale.", "deploy."))
    ]
    if others:
        raise Misuse(
            f"outgrow.toml also changes {', '.join(others)}, which a deploy does not",
            hint="`outgrow scale` changes servers, workers, cpu and balancer; the rest takes "
            "`outgrow down` and `outgrow up`",
        )
    application = replace(
        running.application,
        app=wanted.application.app,
        environment=wanted.application.environment,
        migrations=wanted.application.migrations,
        seed=wanted.application.seed,
    )
    return replace(running, application=application, autoscale=wanted.autoscale, deploy=wanted.deploy)


def judged(new: Figures, old: Figures, limits: Deploy, *, whole: bool) -> str | None:
    """What is wrong with the new version, of which both have answered meanwhile; None: nothing.

    `whole`: the time of watching is over, so that times can be compared too.
    """
    allowed = limits.errors + (old.failed / old.requests if old.requests else 0.0)
    too_many = new.failed >= FAILED_MIN or (whole and new.failed == new.requests)
    if too_many and new.requests and new.failed / new.requests > allowed:
        return f"answers {new.failed:.0f} of {new.requests:.0f} requests with an error"
    if not whole or old.requests < COMPARED_MIN or new.requests < FEW_MIN:
        return None
    name, share = ("p95", 0.95) if new.requests >= COMPARED_MIN else ("median", 0.5)
    slow, usual = new.quantile(share), old.quantile(0.95)
    if slow is None or usual is None or slow <= usual * limits.slower or slow - usual <= SLOWER_S_MIN:
        return None
    return f"is slow: its {name} is {slow * 1000:.0f} ms, the p95 of the version before {usual * 1000:.0f} ms"


class Rollout:
    """Brings one version after another to the servers of a fleet."""

    def __init__(self, supervisor: Supervisor, front: Front) -> None:
        self._supervisor = supervisor
        self._front = front

    async def run(self, before: Version, after: Version) -> None:
        """Replace every server of `before`, whose code must be there to go back to.

        Raises what is wrong with the new version: NodeFailed, ApplicationBroken or FleetError; by then the
        servers run the old one again.
        """
        await self._front.forget_failed()
        servers = await asyncio.to_thread(_servers, after)
        await self._migrate(after)
        published = self._front.published()
        running = self._front.running().values()
        meanwhile = self._front.pool(after.topology, [*running, *servers[0]])
        await self._front.publish(published.stage, min(published.database.pool, meanwhile), several=True)
        try:
            await self._all(servers, before, after)
        finally:
            await self._front.publish(published.stage, published.database.pool, published.cache.several)

    async def _all(self, servers: list[list[Workload]], before: Version, after: Version) -> None:
        done: set[str] = set()
        try:
            for server in servers:
                limits = None if done else after.topology.deploy
                await self._replace(server, limits)
                done |= {each.name for each in server}
        except OutgrowError as error:
            back = await asyncio.to_thread(_servers, before)
            try:
                for server in back:
                    if server[0].name in done:
                        await self._replace(server, None)
            except OutgrowError as worse:
                raise FleetError(
                    f"{error.message}; and the version before does not start any more: {worse.message}",
                    hint="servers of both versions run: deploy one that works",
                ) from error
            raise

    async def _migrate(self, after: Version) -> None:
        job = plan.migration(after.topology, after.place)
        old = job.name + BEFORE
        self._supervisor.rename({job.name: old})
        try:
            await self._supervisor.start([job])
        except OutgrowError:
            await self._supervisor.remove([job.name])
            self._supervisor.rename({old: job.name})
            raise
        await self._supervisor.remove([old])

    async def _replace(self, server: Sequence[Workload], limits: Deploy | None) -> None:
        """The processes of one server. Raises when the new ones are not good; the old ones serve on then."""
        nodes, names = self._supervisor.nodes, [each.name for each in server]
        there = [name for name in names if name in nodes]
        handover.keep(nodes, there)
        self._supervisor.rename({name: name + BEFORE for name in there})
        old = [name + BEFORE for name in there]
        try:
            await self._front.start(server)
            await self._steady(names)
            if limits is not None:
                await self._compare(names, old, limits)
        except OutgrowError:
            await self._front.retire([name for name in names if name in nodes], passes_bytes=False)
            self._supervisor.rename(dict(zip(old, there, strict=True)))
            raise
        await self._front.retire(old, passes_bytes=False)

    async def _steady(self, names: Collection[str]) -> None:
        until = asyncio.get_running_loop().time() + STEADY_S
        while asyncio.get_running_loop().time() < until:
            await asyncio.gather(*(_require_good(self._supervisor.nodes[name]) for name in names))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _compare(self, names: Collection[str], old: Collection[str], limits: Deploy) -> None:
        """Both versions answer, on connections that the kernel spreads over them.

        A balancer has few, and keeps them: they are renewed all the time, so none stays with one version.
        """
        nodes = self._supervisor.nodes
        for address in {each for name in names for each in nodes[name].workload.listen}:
            handover.settled(nodes, address)
        began = await self._figures(names), await self._figures(old)
        loop = asyncio.get_running_loop()
        until, whole = loop.time() + limits.watch, False
        while not whole:
            await self._front.ask("renew", [pid for name in (*names, *old) if (pid := nodes[name].pid)])
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.gather(*(_require_good(nodes[name]) for name in names))
            whole = loop.time() >= until
            new, usual = (
                (await self._figures(names)).since(began[0]),
                (await self._figures(old)).since(began[1]),
            )
            if wrong := judged(new, usual, limits, whole=whole):
                raise NodeFailed(next(iter(names)), f"runs the new version, which {wrong}")

    async def _figures(self, names: Collection[str]) -> Figures:
        addresses = [own for name in names if (own := self._supervisor.nodes[name].workload.own) is not None]
        found = await asyncio.gather(*(figures.look(each.host, each.port) for each in addresses))
        return figures.together(each for each in found if each is not None)


def _servers(version: Version) -> list[list[Workload]]:
    """The processes of each server."""
    found: dict[str, list[Workload]] = {}
    for each in plan.front(*version):
        if each.tier == "application":
            found.setdefault(each.host, []).append(each)
    return list(found.values())


async def _require_good(node: Node) -> None:
    """Raises NodeFailed when it has ended, or cannot do its work."""
    if node.state != "ready":
        raise NodeFailed(node.workload.name, f"runs the new version, and is {node.text or node.state}")
    assert node.workload.own is not None
    status = 0
    with contextlib.suppress(OSError, ValueError):
        async with asyncio.timeout(ANSWER_WITHIN_S):
            status = await http_status(node.workload.own, "/health/deep")
    if not 0 < status < 500:
        raise NodeFailed(
            node.workload.name, f"runs the new version, and its /health/deep says {status or 'nothing'}"
        )

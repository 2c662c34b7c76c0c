"""From one PostgreSQL to a primary with replicas, live.

The new nodes are copies that follow the PostgreSQL that runs (a standby cluster, in Patroni's words). The
first of them is promoted while writes are held. The old server's data stays aside, as it was at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster.control import Request
from outgrow.cluster.plan import capped, replicated, runs_postgres
from outgrow.engines.patroni.client import Client, leads_copies
from outgrow.engines.patroni.patroni import Patroni
from outgrow.engines.pgbouncer import pgbouncer
from outgrow.engines.postgres import setup as postgres_setup
from outgrow.engines.postgres.postgres import PORT, Postgres
from outgrow.errors import FleetError, FleetNotRunning
from outgrow.growth.data import postgres_follower as follower
from outgrow.growth.handover import READERS_WITHIN_S, Handover
from outgrow.growth.moves.change_of_front import become
from outgrow.growth.moves.sqlite_to_postgres import SERVER, require_published
from outgrow.growth.step import Context, Step
from outgrow.topology import Topology

ASIDE = "postgres.before"
LEADS_WITHIN_S = 30.0
"""A lease of twenty seconds that was left, and a round."""

LOOK_S = 0.2
FRONT_STAGE = "load-balancer"
"""The stage with this front and a database without replicas."""


class AddReplicas(Handover):
    """Where there is no balancer yet and the stage wants one, it comes first."""

    name = "add-replicas"
    says = "gives the database replicas"

    def fits(self, before: Topology, after: Topology) -> bool:
        grows = runs_postgres(before) and not replicated(before) and replicated(after)
        return grows and before.sessions == after.sessions and before.cache == after.cache

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        front = Step("front", "servers, balancer", self.change_front, undo=self.change_back, lasting=True)
        return (front, *super().steps())

    async def change_front(self, context: Context) -> None:
        """What stands before the database, as the stage wants it."""
        if not context.decided:
            await become(context, _halfway(context.before, context.after))

    async def change_back(self, context: Context) -> None:
        """As it was."""
        await become(context, context.before)

    async def prepare(self, context: Context) -> None:
        """Start etcd and the nodes. Raises FleetError when there is data of other nodes already."""
        if context.decided:
            return
        context.state.keep_secrets(context.after)
        self._claim(context)
        passwords = endpoints.read_secrets(self.place(context).operator_secrets).passwords
        await postgres_setup.provision(
            self.old(context).server_url, context.before.application.name, passwords
        )
        # The roles come with the data: only when the nodes accept writes there is something to do for them.
        workloads = [each for each in self.new(context).workloads() if each.name != self.new(context).last]
        await self.ask(
            context, Request("start", workloads=tuple(capped(w, context.after) for w in workloads))
        )

    def _claim(self, context: Context) -> None:
        if "claimed" in context.kept:
            return
        host = published_host(context)
        context.keep({"host": host})
        server = self.old(context)
        require_published(context, server.url, pgbouncer.url(server.role, host))
        require_absent(self.new(context).folder, "replicas")
        context.keep({"claimed": True})

    async def unprepare(self, context: Context) -> None:
        """End them, and remove their copies."""
        if "claimed" in context.kept:
            await remove_cluster(self, context, self.new(context))

    async def retire(self, context: Context) -> None:
        """The roles are made sure of at the new nodes; the old server ends, and its data goes aside."""
        new, old = self.new(context), self.old(context)
        (provision,) = [each for each in new.workloads() if each.name == new.last]
        await self.ask(context, Request("start", workloads=(provision,)))
        with contextlib.suppress(FleetError):
            async with follower.connected(old.admin_url, self.password(context)) as source:
                await self.ask(context, Request("remove", names=(pgbouncer.NAME,)))
                await follower.until_unused(source, old.role, READERS_WITHIN_S)
        with contextlib.suppress(FleetNotRunning):
            await self.ask(context, Request("remove", names=SERVER))
        await asyncio.to_thread(_put_aside, self.place(context).data / "postgres")

    async def copy_url(self, context: Context) -> str:
        """The node that follows the old server itself; the others follow that one."""
        host = await self._first(context)
        name = context.after.application.name
        return f"postgresql://outgrow_admin@{host}:{PORT}/{name}"

    async def _first(self, context: Context) -> str:
        """Where the fleet was killed, and has started again, it has yet to get its lease back."""
        deadline = asyncio.get_running_loop().time() + LEADS_WITHIN_S
        while True:
            for host in self.new(context).hosts.values():
                if await asyncio.to_thread(leads_copies, host):
                    return host
            if asyncio.get_running_loop().time() > deadline:
                raise FleetError("none of the new nodes follows the old server")
            await asyncio.sleep(LOOK_S)

    async def promote(self, context: Context, copy: Any) -> None:
        """It is no standby cluster any more: Patroni promotes the node that has the lease, at once."""
        password = endpoints.read_secrets(self.place(context).operator_secrets).passwords["patroni"]
        host = await self._first(context)
        await asyncio.to_thread(Client(password).change, "PATCH", host, "/config", {"standby_cluster": None})
        await follower.until_writable(copy)

    def old(self, context: Context) -> Postgres:
        return Postgres(context.before, self.place(context))

    def new(self, context: Context) -> Patroni:
        return Patroni(context.after, self.place(context), source=self.old(context).address)


def _halfway(before: Topology, after: Topology) -> Topology:
    """The front is new, the database is not."""
    stage = FRONT_STAGE if after.balancer.engine else before.stage
    return replace(after, stage=stage, database=before.database)


def published_host(context: Context) -> str:
    """Where the database is that the application works with."""
    document = context.state.published()
    assert document is not None
    return str(urlsplit(document.database.shards[0].nodes[0].url).hostname)


def require_absent(data: Path, what: str) -> None:
    """Raises FleetError when there is data that nobody has moved away from it."""
    if data.exists():
        raise FleetError(
            f"{data} holds data of its own already",
            hint=f"it comes from a run with {what}; to give it up, stop the fleet and remove {data}",
        )


async def remove_cluster(move: Handover, context: Context, cluster: Patroni) -> None:
    """End the nodes and etcd, and remove all that they keep."""
    names = tuple(each.name for each in cluster.workloads())
    with contextlib.suppress(FleetNotRunning):
        await move.ask(context, Request("remove", names=names))
    await asyncio.to_thread(shutil.rmtree, cluster.folder, ignore_errors=True)


def _put_aside(data: Path) -> None:
    if data.exists():
        shutil.rmtree(data.with_name(ASIDE), ignore_errors=True)
        data.rename(data.with_name(ASIDE))

"""From a primary with replicas back to one PostgreSQL, live: a copy of the primary takes its place."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import Any

from msgspec.structs import replace

from outgrow.cluster.control import Request
from outgrow.cluster.plan import capped, replicated, runs_postgres
from outgrow.engines.patroni.patroni import Patroni
from outgrow.engines.postgres.postgres import COPY, Postgres, room_for
from outgrow.errors import FleetError, FleetNotRunning
from outgrow.growth.data import postgres_follower as follower
from outgrow.growth.handover import READERS_WITHIN_S, Handover
from outgrow.growth.moves.add_replicas import (
    published_host,
    remove_cluster,
    require_absent,
)
from outgrow.growth.moves.change_of_front import become
from outgrow.growth.moves.sqlite_to_postgres import SERVER
from outgrow.growth.step import Context, Step
from outgrow.topology import Topology


class RemoveReplicas(Handover):
    """Where the stage has no balancer, that one goes last."""

    name = "remove-replicas"
    says = "leaves the database without replicas"

    def fits(self, before: Topology, after: Topology) -> bool:
        shrinks = replicated(before) and runs_postgres(after) and not replicated(after)
        return shrinks and before.sessions == after.sessions and before.cache == after.cache

    def steps(self) -> tuple[Step, ...]:
        """In order: the front changes when the data has moved, and before all is settled."""
        *others, settle = super().steps()
        return (*others, Step("front", "servers, balancer", self.change_front), settle)

    async def prepare(self, context: Context) -> None:
        """Copy the primary and start the copy. Raises FleetError when there is data of another server."""
        if context.decided:
            return
        self._claim(context)
        new = Postgres(context.after, self.place(context), room=room_for(context.before))
        workloads = new.follower(self.old(context).replication_url)
        await self.ask(
            context, Request("start", workloads=tuple(capped(w, context.after) for w in workloads))
        )

    def _claim(self, context: Context) -> None:
        if "claimed" in context.kept:
            return
        context.keep({"host": context.state.placement(published_host(context)).neighbour(1)})
        require_absent(self.place(context).data / "postgres", "one PostgreSQL")
        context.keep({"claimed": True})

    async def unprepare(self, context: Context) -> None:
        """End it, and remove the copy."""
        if "claimed" not in context.kept:
            return
        with contextlib.suppress(FleetNotRunning):
            await self.ask(context, Request("remove", names=SERVER))
        for name in ("postgres", "postgres.new"):
            await asyncio.to_thread(shutil.rmtree, self.place(context).data / name, ignore_errors=True)

    async def change_front(self, context: Context) -> None:
        """What stands before the database, as the stage wants it."""
        await self.ask(context, Request("adopt", topology=_front_of(context.before, context.after)))
        await become(context, context.after)

    async def retire(self, context: Context) -> None:
        """The old nodes end, and nothing of them is kept: the copy was compared with them."""
        old = self.old(context)
        with contextlib.suppress(FleetError):
            async with follower.connected(old.admin_url, self.password(context)) as source:
                await follower.until_unused(source, old.role, READERS_WITHIN_S)
        await remove_cluster(self, context, old)
        with contextlib.suppress(FleetNotRunning):  # the job, so that it is done again next time
            await self.ask(context, Request("remove", names=(COPY,)))

    async def copy_url(self, context: Context) -> str:
        return self.new(context).admin_url

    async def promote(self, context: Context, copy: Any) -> None:
        await follower.promote(copy)

    def old(self, context: Context) -> Patroni:
        return Patroni(context.before, self.place(context))

    def new(self, context: Context) -> Postgres:
        return Postgres(context.after, self.place(context))


def _front_of(before: Topology, after: Topology) -> Topology:
    """The front as it still is, on the database as it is now."""
    return replace(before, stage=after.stage, database=after.database)

"""Moving a PostgreSQL to other nodes while the application serves: what both ways share.

prepare ─► verify ─► switch ─► settle
   └ the new nodes are physical copies that follow the old primary     │
hold writes ─► lock the old primary ─► the copy has all ─► promote it ─► fence the old ─► publish ─► let go
                                                                                             │
                                                          from here on the data is there ────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.cluster.processes import Processes
from outgrow.endpoints import Endpoints
from outgrow.engines import Placement
from outgrow.engines.patroni.patroni import Patroni
from outgrow.engines.postgres.postgres import Postgres
from outgrow.errors import FleetError, FleetNotRunning
from outgrow.growth import archive, settings
from outgrow.growth.data import postgres_follower as follower
from outgrow.growth.relocation import TIMELINE_STEP
from outgrow.growth.step import DECISIVE_EPOCH, Context, Step
from outgrow.topology import Topology

HOLD_S = 10.0
"""A process goes on by itself after that."""

HOLD_SHARE = 0.7
"""Of the time for which a write block waits: what is not done by then is given up."""

FOLLOWS_WITHIN_S = 300.0
ATTEMPTS = 5
PAUSE_S = 0.5
READERS_WITHIN_S = 65.0
"""Longer than a process waits for blocks on a database that was left (runtime/database/database.py)."""


class Handover(ABC):
    """A subclass knows the two engines."""

    name: ClassVar[str]
    says: ClassVar[str]

    @abstractmethod
    def fits(self, before: Topology, after: Topology) -> bool:
        """Whether it leads from one to the other."""

    @abstractmethod
    async def prepare(self, context: Context) -> None:
        """Have the new nodes there, following the old primary."""

    @abstractmethod
    async def unprepare(self, context: Context) -> None:
        """Take them away again."""

    @abstractmethod
    async def retire(self, context: Context) -> None:
        """The old nodes are needed no more."""

    @abstractmethod
    def old(self, context: Context) -> Postgres | Patroni:
        """The nodes that it leaves."""

    @abstractmethod
    def new(self, context: Context) -> Postgres | Patroni:
        """Those that it goes to."""

    @abstractmethod
    async def copy_url(self, context: Context) -> str:
        """The node that is to become the new primary."""

    @abstractmethod
    async def promote(self, context: Context, copy: Any) -> None:
        """Have it accept writes. `copy` is a connection to it."""

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        return (
            Step("prepare", "start nodes with copies", self.prepare, undo=self.unprepare, lasting=True),
            Step("verify", "compare everything", self.verify),
            Step("switch", "hold writes, promote the copy, switch", self.switch, undo=self.unswitch),
            Step("settle", "write outgrow.toml, end what is left", self.settle),
        )

    async def verify(self, context: Context) -> None:
        """At one moment, for which writers wait for some milliseconds."""
        source, password = self.source_url(context), self.password(context)
        async with (
            follower.connected(source, password) as first,
            follower.connected(source, password) as second,
            follower.connected(await self.copy_url(context), password) as copy,
        ):
            await follower.until_replayed(copy, await follower.position(first), FOLLOWS_WITHIN_S)
            limit_s = self._limit_s(context)
            digest = await follower.verify(first, second, copy, limit_s, context.says)
        context.keep({"checksum": digest})

    async def switch(self, context: Context) -> None:
        """The decisive step. When it was cut off behind that point, everybody is told what holds."""
        if context.decided:
            await self._fence_again(context)
        else:
            await self._switch(context)
        async with Processes(context.state.placement().control) as everybody:
            await everybody.ask("reload")
        await self._back_up(context, context.after, self.new(context))
        if "held_s" in context.kept:
            context.says(f"writes were held for {context.kept['held_s']:.3f} s")

    async def unswitch(self, context: Context) -> None:
        """The data stays where it is, and so do its backups."""
        with contextlib.suppress(FleetNotRunning):
            await self._back_up(context, context.before, self.old(context))

    async def _back_up(self, context: Context, topology: Topology, database: Postgres | Patroni) -> None:
        if topology.backup.directory is not None:
            await archive.go_on(topology, self.place(context), database, lambda each: self.ask(context, each))

    async def _fence_again(self, context: Context) -> None:
        """Whoever was cut off may not have come to it. A source that is gone takes no writes anyway."""
        with contextlib.suppress(FleetError):
            async with follower.connected(self.source_url(context), self.password(context)) as source:
                if await source.fetchval("SELECT NOT pg_is_in_recovery()"):
                    await follower.fence(source, context.before.application.name)

    async def _switch(self, context: Context) -> None:
        """Try until the copy has everything in time. Once it is promoted there is no second attempt."""
        if not await self._follows(context):
            context.says("the copy was promoted, and the switch then cut off: it is made anew.")
            # Which will not have what the backups have not read of the old primary's log by then.
            await self._back_up(context, context.before, self.old(context))
            await self.unprepare(context)
            await self.prepare(context)
            await self.verify(context)
        await self._leave_archive(context)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._switch_once(context)
                break
            except _NotYet as error:
                if attempt == ATTEMPTS:
                    raise FleetError(error.message) from error
                context.says(f"the writes went on: {error.message}. It is tried again")
                await asyncio.sleep(PAUSE_S)

    async def _leave_archive(self, context: Context) -> None:
        if context.before.backup.directory is None:
            return
        source, copy = self.source_url(context), await self.copy_url(context)
        told = await archive.leave(source, copy, self.password(context), lambda each: self.ask(context, each))
        if told:
            context.says(told)

    async def _follows(self, context: Context) -> bool:
        with contextlib.suppress(FleetError):
            async with follower.connected(await self.copy_url(context), self.password(context)) as copy:
                return bool(await copy.fetchval("SELECT pg_is_in_recovery()"))
        return False

    async def _switch_once(self, context: Context) -> None:
        password, limit_s = self.password(context), self._limit_s(context)
        source_url = self.source_url(context)
        async with (
            Processes(context.state.placement().control) as processes,
            follower.connected(source_url, password) as source,
            follower.connected(source_url, password) as beside,
            follower.connected(await self.copy_url(context), password) as copy,
        ):
            began = time.monotonic()
            await _or_not_yet(processes.hold(HOLD_S))
            async with _locked(source):
                await _or_not_yet(self._replayed(processes, beside, copy, limit_s))
                await self.promote(context, copy)
                if time.monotonic() - began > limit_s:
                    raise FleetError(f"the promotion took {time.monotonic() - began:.1f} s")
                await follower.fence(source, context.before.application.name)
                self._publish(context)
                await follower.commit(source)
            await processes.ask("reload")
            await processes.ask("release")
            context.keep({"held_s": round(time.monotonic() - began, 3)})

    async def _replayed(self, processes: Processes, beside: Any, copy: Any, limit_s: float) -> None:
        await follower.until_replayed(copy, await follower.position(beside), limit_s / 2)
        await processes.hold(HOLD_S)  # who has come meanwhile

    def _publish(self, context: Context) -> None:
        document = self.document(context)
        context.keep({DECISIVE_EPOCH: document.epoch})
        endpoints.write(context.state.placement().endpoints, document)

    async def settle(self, context: Context) -> None:
        """What is left to do when the data has moved."""
        settings.settle(context.directory, context.after)
        await self.ask(context, Request("adopt", topology=context.after))
        await self.retire(context)

    def source_url(self, context: Context) -> str:
        """The old primary, for the fleet's superuser."""
        return self.old(context).admin_url

    async def ask(self, context: Context, request: Request) -> None:
        """The fleet."""
        await control.change(context.directory, request, tell=lambda change: context.says(change.node))

    def document(self, context: Context) -> Endpoints:
        """The endpoints after the move.

        All positions of before are older: the old primary's log grows beyond the switch without any data.
        """
        before = context.state.published()
        assert before is not None
        made = endpoints.from_topology(
            context.after,
            context.directory,
            epoch=before.epoch + 1,
            nodes=self.new(context).nodes,
            secrets_file=before.secrets_file,
            control=before.control,
        )
        shards = tuple(
            replace(shard, timeline=earlier.timeline + TIMELINE_STEP)
            for shard, earlier in zip(made.database.shards, before.database.shards, strict=True)
        )
        database = replace(made.database, shards=shards, pool=before.database.pool)
        cache = replace(before.cache, changes_url=self.new(context).changes_url)
        return replace(made, moved=True, database=database, cache=cache, sessions=before.sessions)

    def place(self, context: Context) -> Placement:
        """Where the fleet's nodes are."""
        return context.state.placement(str(context.kept["host"]))

    def password(self, context: Context) -> str:
        """Of the fleet's superuser, at the old nodes and the new ones."""
        return endpoints.read_secrets(context.state.placement().operator_secrets).passwords["admin"]

    def _limit_s(self, context: Context) -> float:
        return min(HOLD_S, context.before.database.checkout_timeout) * HOLD_SHARE


class _NotYet(FleetError):
    """Nothing has happened; the next attempt may do it."""


async def _or_not_yet(work: Any) -> None:
    try:
        await work
    except FleetError as error:
        raise _NotYet(error.message) from error


@contextlib.asynccontextmanager
async def _locked(source: Any) -> Any:
    lock = follower.locked(source)
    try:
        await lock.__aenter__()
    except Exception as error:
        raise _NotYet(f"the tables could not be locked: {error}") from error
    try:
        yield
    finally:
        await lock.__aexit__(None, None, None)

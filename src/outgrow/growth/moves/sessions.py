"""Sessions to another store, live: from memory or the database into Redis (stage 8), and to the database.

store ─► both ─► turn ─► carry ─► front ─► leave ─► settle
Redis     │       │        │        │        │       outgrow.toml; Redis ends when it is the old store
          │       │        │        │        └ no process looks into the old store any more
          │       │        │        └ servers, balancer, the address
          │       │        └ each session that is still in the old store
          │       └ new ones begin in the new store
          └ every process looks into both

Every process knows both stores before the first session moves, and none moves any more before the first
process forgets the old one (runtime/sessions/moving.py). So at no moment is there a process that
cannot find a session, or one that changes a copy of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import ClassVar

from msgspec.structs import replace

from outgrow.cluster.control import Request
from outgrow.cluster.plan import capped
from outgrow.cluster.processes import Answer, Processes
from outgrow.endpoints import SessionStore
from outgrow.engines.redis import redis
from outgrow.engines.redis import sessions as redis_sessions
from outgrow.engines.redis.sessions import RedisSessions
from outgrow.errors import FleetNotRunning
from outgrow.growth import settings
from outgrow.growth.moves.change_of_front import become
from outgrow.growth.pace import Pace
from outgrow.growth.publishing import change, patiently, until_obeyed
from outgrow.growth.step import DECISIVE_EPOCH, Context, Step
from outgrow.topology import Topology

TURN_S = 0.2
"""So long a process carries before the application has its turn."""


class MoveSessions:
    """From any store into Redis; from Redis into the database."""

    name: ClassVar[str] = "move-sessions"
    says: ClassVar[str] = "moves all sessions to another store"

    def fits(self, before: Topology, after: Topology) -> bool:
        """Between stages that share one database."""
        same = before.database == after.database and before.cache == after.cache
        same = same and after.database.engine == "postgres"
        own = before.sessions.url is None and after.sessions.url is None
        return same and own and after.sessions.engine not in (before.sessions.engine, "off")

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        return (
            Step("store", "have the new store ready", self.start, undo=self.stop, lasting=True),
            Step("both", "every process looks into both stores", self.both, undo=self.old_alone),
            Step("turn", "new sessions begin in the new store", self.turn, undo=self.turn_back),
            Step("carry", "carry over every session that there is", self.carry),
            Step("front", "servers, balancer, the address", self.front, undo=self.front_back, lasting=True),
            Step("leave", "no process looks into the old store any more", self.leave),
            Step("settle", "write outgrow.toml, end the old store", self.settle),
        )

    async def start(self, context: Context) -> None:
        """Redis, when it is to be the new store."""
        if context.after.sessions.engine != "redis":
            return
        context.state.keep_secrets(context.after)
        if "host" not in context.kept:
            context.keep({"host": context.state.free_host((redis_sessions.NODE, redis.PORT))})
        workloads = tuple(capped(each, context.after) for each in _server(context).workloads())
        await change(context, Request("start", workloads=workloads))

    async def stop(self, context: Context) -> None:
        """It was not needed."""
        if context.after.sessions.engine == "redis":
            await _end_redis(context)

    async def both(self, context: Context) -> None:
        """The new store is empty when the first session moves: what it had was of another time."""
        old, new = _old(context), _new(context)
        await _keep(context, old, also=new)
        if old.engine != "off":
            await _each(context, "clear")

    async def old_alone(self, context: Context) -> None:
        """As it was."""
        await _keep(context, _old(context))

    async def turn(self, context: Context) -> None:
        """The stores change their parts."""
        await _keep(context, _new(context), also=_old(context))

    async def turn_back(self, context: Context) -> None:
        """And again, and what has gone over comes back. After a restart some may know the new one alone."""
        await _keep(context, _new(context), also=_old(context))
        await _keep(context, _old(context), also=_new(context))
        context.says(f"{await _each(context, 'carry'):,} sessions")

    async def carry(self, context: Context) -> None:
        """Of processes, each its own memory; of another store, one process for all."""
        count = await _each(context, "carry")
        context.keep({"sessions": count})
        context.says(f"{count:,} sessions.")

    async def front(self, context: Context) -> None:
        """What stands before the database becomes the topology after."""
        await become(context, context.after)

    async def front_back(self, context: Context) -> None:
        """And the topology before."""
        await become(context, context.before)

    async def leave(self, context: Context) -> None:
        """The decisive step: the stage is published by then, and nothing is left in the old store."""
        if not context.decided:
            await _each(context, "carry")
            published = context.state.published()
            assert published is not None
            context.keep({DECISIVE_EPOCH: published.epoch + 1})
        await _keep(context, _new(context))

    async def settle(self, context: Context) -> None:
        """What `outgrow up` starts from now on."""
        settings.settle(context.directory, context.after)
        await change(context, Request("adopt", topology=context.after))
        if context.before.sessions.engine == "redis":
            await _end_redis(context)


def _server(context: Context) -> RedisSessions:
    return RedisSessions(context.after, context.state.placement(str(context.kept["host"])))


def _old(context: Context) -> SessionStore:
    return _store(context, context.before)


def _new(context: Context) -> SessionStore:
    return _store(context, context.after)


def _store(context: Context, topology: Topology) -> SessionStore:
    engine = topology.sessions.engine or "off"
    return SessionStore(engine, _redis_url(context) if engine == "redis" else None)


def _redis_url(context: Context) -> str:
    """Where it is published to be, since another start of the fleet may have moved it; else as begun."""
    published = context.state.published()
    assert published is not None
    for each in (published.sessions, published.sessions.also):
        if each is not None and each.engine == "redis" and each.url is not None:
            return each.url
    return _server(context).url


async def _keep(context: Context, home: SessionStore, *, also: SessionStore | None = None) -> None:
    """Publish it, and have every process obey. Raises FleetError when one does not."""
    published = context.state.published()
    assert published is not None
    if also is not None and "off" in (home.engine, also.engine):
        also = None  # there is nothing to move
    sessions = replace(published.sessions, engine=home.engine, url=home.url, also=also)
    await change(context, Request("sessions", sessions=sessions))
    await until_obeyed(context)


async def _each(context: Context, command: str) -> int:
    """Ask for it until nothing is left in the other store. Returns how many sessions."""
    count, left = 0, True
    async with Pace(context.state.placement().control) as pace:
        while left:
            answers = await patiently(lambda: _ask(context, command))
            count += sum(answer.carried for answer in answers)
            left = any(answer.left for answer in answers)
            if left:
                context.says(f"{count:,} sessions")
                await pace.rest(TURN_S)
    return count


async def _ask(context: Context, command: str) -> list[Answer]:
    each_its_own = "memory" in (context.before.sessions.engine, context.after.sessions.engine)
    async with Processes(context.state.placement().control) as processes:
        ask = processes.ask if each_its_own else processes.ask_one
        return await ask(command, seconds=TURN_S)


async def _end_redis(context: Context) -> None:
    """And its data: another move would find sessions of an earlier time there."""
    with contextlib.suppress(FleetNotRunning):
        await change(context, Request("remove", names=(redis_sessions.NAME,)))
    data = context.state.placement().data / redis_sessions.NAME
    await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)

"""What stands before the database, changed while it serves: application servers, their workers, balancers.

    (a pooler) ─► smaller pools published ─► new processes, ready ─► the balancer started, or told of them
      ─► those that go get nothing new ─► drained ─► ended ─► larger pools and the stage published

Each turn compares what runs with what is wanted, so it can be repeated after an interruption at any line.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster import plan
from outgrow.cluster.processes import Processes
from outgrow.cluster.state import State
from outgrow.engines import Placement
from outgrow.engines.application import SUCCESSOR
from outgrow.errors import FleetError, Misuse, NodeFailed, OutgrowError
from outgrow.supervisor import handover, process
from outgrow.supervisor.node import Change, Node
from outgrow.supervisor.probe import http_status
from outgrow.supervisor.supervisor import Supervisor
from outgrow.topology import Topology
from outgrow.workload import File, Workload

FIT_WITHIN_S = 15.0
BALANCER_WITHIN_S = 10.0
DRAIN_WITHIN_S = 10.0
QUIET_S = 1.0
"""Without a connection for so long, a process has been left by everybody who was told to leave it."""

ASKED_EVERY_S = 0.05
ANSWER_WITHIN_S = 3.0
POOL_MIN = 2
TIERS = ("application", "balancer")


class Difference(NamedTuple):
    """What is to be started, and the names of what is to go."""

    added: tuple[Workload, ...]
    gone: tuple[str, ...]


def difference(running: Mapping[str, Workload], wanted: Sequence[Workload]) -> Difference:
    """From what runs to what is wanted. Those that go are in the order in which they go: balancers first."""
    names = {each.name for each in wanted}
    gone = [each for each in running.values() if each.tier in TIERS and each.name not in names]
    gone.sort(key=lambda each: each.tier != "balancer")
    return Difference(
        tuple(each for each in wanted if each.name not in running), tuple(each.name for each in gone)
    )


def changed(running: Topology, wanted: Topology) -> Topology:
    """The running topology with what may change while it runs, and nothing else."""
    application = replace(
        running.application,
        servers=wanted.application.servers,
        workers=wanted.application.workers,
        cpu=wanted.application.cpu,
    )
    return replace(
        running,
        stage=wanted.stage,
        application=application,
        balancer=wanted.balancer,
        fleet=wanted.fleet,
        autoscale=wanted.autoscale,
    )


def share(wanted: int, processes: int, room: int) -> int:
    """How many connections each process may have. Raises Misuse when it would be too few to work."""
    if room // processes < POOL_MIN:
        raise Misuse(
            f"{processes} processes would have less than {POOL_MIN} connections each: the database as it "
            f"runs has {room} for them",
            hint="write the figures into outgrow.toml and start the fleet again: the database then has more",
        )
    return min(wanted, room // processes)


def several(workloads: Iterable[Workload]) -> bool:
    """Whether more than one process of the application is among them."""
    return sum(each.tier == "application" for each in workloads) > 1


class Front:
    """Changes the front of one fleet."""

    def __init__(self, supervisor: Supervisor, state: State, tell: Callable[[Change], None]) -> None:
        self._supervisor = supervisor
        self._state = state
        self._tell = tell

    async def become(self, running: Topology, topology: Topology, placement: Placement) -> None:
        """Run what this topology wants before the database, and nothing else of that kind.

        Raises Misuse, EngineMissing, NodeFailed or FleetError; what ran before serves on then.
        """
        wanted = await asyncio.to_thread(plan.front, topology, placement)
        await self.forget_failed()
        await self._share_connections(topology, placement)
        added, gone = difference(self.running(), wanted)
        both = [*self.running().values(), *added]
        before, pool = self.published(), self.pool(topology, wanted)
        await self.publish(
            before.stage, min(before.database.pool, self.pool(topology, both), pool), several(both)
        )
        try:
            await self.start([each for each in added if each.tier == "application"])
            await self._balance(topology, placement, [each for each in added if each.tier != "application"])
        except OutgrowError:
            await self._supervisor.remove([each.name for each in added])
            await self.publish(before.stage, before.database.pool, before.cache.several)
            raise
        self._limit(wanted)
        await self._renew(topology, placement, wanted)
        await self.retire(gone, passes_bytes=running.balancer.layer == 4 != topology.balancer.layer)
        await self.publish(topology.stage, pool, several(wanted))

    async def _share_connections(self, topology: Topology, placement: Placement) -> None:
        """A pooler comes when there will be too many connections, and stays until the next start."""
        nodes = self._supervisor.nodes
        if "postgres" not in nodes or not plan.runs_pgbouncer(topology):
            return
        from outgrow.engines.pgbouncer import pgbouncer

        if pgbouncer.NAME in nodes:
            return
        before = self.published()
        shard = before.database.shards[0]
        host = str(urlsplit(shard.nodes[0].url).hostname)
        pooler = await asyncio.to_thread(pgbouncer.PgBouncer, topology, placement._replace(host=host))
        try:
            await self._supervisor.start([plan.capped(each, topology) for each in pooler.workloads()])
        except OutgrowError:
            await self._supervisor.remove([pooler.last])
            raise
        # The same database by another way: what is under way on the old one ends there.
        shared = replace(shard, nodes=(replace(shard.nodes[0], url=pooler.url, pooled=True),))
        await self._publish(replace(before, database=replace(before.database, shards=(shared,))))

    def running(self) -> dict[str, Workload]:
        """What runs, by name."""
        return {name: node.workload for name, node in self._supervisor.nodes.items()}

    async def forget_failed(self) -> None:
        """What has failed is no part of the fleet any more; it is started anew if it is wanted."""
        nodes = self._supervisor.nodes.items()
        failed = [name for name, node in nodes if node.workload.tier in TIERS and node.state == "failed"]
        await self._supervisor.remove(failed)

    def _limit(self, wanted: Sequence[Workload]) -> None:
        for each in wanted:
            node = self._supervisor.nodes.get(each.name)
            if node is not None and node.workload.cpu != each.cpu:
                self._supervisor.limit(each.name, each.cpu)

    def pool(self, topology: Topology, workloads: Iterable[Workload]) -> int:
        """Connections of each process of the application when these run. Raises Misuse."""
        nodes = self._supervisor.nodes
        server = next((nodes[name] for name in ("postgres", "postgres-1") if name in nodes), None)
        if server is None:  # a file, or somebody else's server
            return topology.database.pool
        from outgrow.engines.pgbouncer import pgbouncer
        from outgrow.engines.postgres import postgres

        pooled = pgbouncer.NAME in self._supervisor.nodes
        room = pgbouncer.clients() if pooled else postgres.room(server.workload)
        processes = sum(each.tier == "application" for each in workloads)
        return share(topology.database.pool, processes, room)

    async def start(self, added: Sequence[Workload]) -> None:
        """Each can do its work when this returns."""
        await self._supervisor.start(added)
        await asyncio.gather(*(self._until_fit(each) for each in added))

    async def _until_fit(self, server: Workload) -> None:
        """A server that cannot reach what it depends on would answer every request wrongly, and fast."""
        assert server.own is not None
        status = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIT_WITHIN_S):
                while True:
                    with contextlib.suppress(OSError, ValueError):
                        status = await http_status(server.own, "/health/deep")
                        if 0 < status < 500:  # 404: an application without Outgrow's middleware
                            return
                    await asyncio.sleep(ASKED_EVERY_S)
        raise NodeFailed(server.name, f"is up, and its /health/deep says {status or 'nothing'}")

    async def _balance(self, topology: Topology, placement: Placement, added: Sequence[Workload]) -> None:
        """Balancers that run are told of the servers; new ones are started, beside what is there."""
        engine = plan.balancer(topology, placement)
        if engine is None:
            return
        new = [each for each in added if each.tier == "balancer"]
        if len(new) < len(engine.addresses):
            await self._tell_balancers(engine.files())
        await self._supervisor.start(added)
        for each in new:
            await self._until_it_listens(each)

    async def _tell_balancers(self, files: Sequence[File]) -> None:
        try:
            await asyncio.to_thread(process.write_files, files)
        except OSError as error:
            raise FleetError(
                f"{error.filename} cannot be written: {error.strerror}", hint="the balancer stays as it was"
            ) from error

    async def _until_it_listens(self, balancer: Workload) -> None:
        """By itself: on an address that it shares, an open port says nothing."""
        deadline = asyncio.get_running_loop().time() + BALANCER_WITHIN_S
        while True:
            members = handover.group(self._supervisor.nodes, balancer.claims[0])
            if any(member.name == balancer.name for member in members):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise NodeFailed(balancer.name, f"does not listen on {balancer.claims[0]}")
            await asyncio.sleep(ASKED_EVERY_S)

    async def _renew(self, topology: Topology, placement: Placement, wanted: Sequence[Workload]) -> None:
        """One server after the other: those whose processes were started with something else."""
        nodes = self._supervisor.nodes
        other = [each for each in wanted if each.tier == "application" and nodes[each.name].workload != each]
        for host in dict.fromkeys(each.host for each in other):
            mine = [each for each in other if each.host == host]
            if reduced := plan.balancer(topology, placement, without=host.removesuffix(SUCCESSOR)):
                await self._tell_balancers(reduced.files())
            await self.drain([nodes[each.name] for each in mine])
            await asyncio.gather(*(self._supervisor.replace(each) for each in mine))
            await asyncio.gather(*(self._until_fit(each) for each in mine))
            if whole := plan.balancer(topology, placement):
                await self._tell_balancers(whole.files())

    async def retire(self, gone: Sequence[str], *, passes_bytes: bool) -> None:
        """Nobody is sent to them any more, whoever is there may finish, then they end.

        A balancer that `passes_bytes` cannot ask its clients to go: the servers do it.
        """
        nodes = self._supervisor.nodes
        servers = [name for name in gone if nodes[name].workload.tier == "application"]
        balancers = set(gone) - set(servers)
        await handover.leave(nodes, balancers)
        if passes_bytes:
            await self.ask("renew")
        await self._supervisor.remove(balancers)
        await handover.leave(nodes, servers)
        await self.drain([nodes[name] for name in servers])
        await self._supervisor.remove(servers)

    async def drain(self, servers: Sequence[Node]) -> None:
        """Until all their connections have ended. One that does not answer is not waited for."""
        pids = [node.pid for node in servers if node.pid is not None]
        if not pids:
            return
        for node in servers:
            self._tell(Change(node.workload.name, "stopping", "draining"))
        loop = asyncio.get_running_loop()
        deadline, last_used = loop.time() + DRAIN_WITHIN_S, loop.time()
        with contextlib.suppress(FleetError):
            async with Processes(self._state.placement().control, only=pids) as processes:
                while loop.time() < min(deadline, last_used + QUIET_S):
                    answers = await processes.ask("drain", within_s=ANSWER_WITHIN_S)
                    if any(answer.connections for answer in answers):
                        last_used = loop.time()
                    await asyncio.sleep(ASKED_EVERY_S)

    def published(self) -> endpoints.Endpoints:
        """The document that the application reads now."""
        return endpoints.read(self._state.placement().endpoints)

    async def publish(self, stage: str, pool: int, several: bool) -> None:
        """Where everything is stays; the stage changes, how many connections each process may have, and
        whether there is more than one."""
        before = self.published()
        after = replace(
            before,
            stage=stage,
            database=replace(before.database, pool=pool),
            cache=replace(before.cache, several=several),
        )
        if after != before:
            await self._publish(after)

    async def _publish(self, document: endpoints.Endpoints) -> None:
        self._state.epoch = document.epoch + 1
        endpoints.write(self._state.placement().endpoints, replace(document, epoch=self._state.epoch))
        self._state.note(self._state.notes)
        await self.ask("reload")

    async def ask(self, command: str, only: Collection[int] | None = None) -> None:
        """Every process, or those of the pids in `only`.

        One that hangs is no reason to stop: it obeys when it goes on.
        """
        with contextlib.suppress(FleetError):
            async with Processes(self._state.placement().control, only) as processes:
                await processes.ask(command, within_s=ANSWER_WITHIN_S)

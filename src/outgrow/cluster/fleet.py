"""One fleet, from start to end, inside the supervisor's process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster import plan, releases
from outgrow.cluster.control import Control
from outgrow.cluster.failovers import Failovers
from outgrow.cluster.front import Front, changed
from outgrow.cluster.measure import Meter
from outgrow.cluster.rollout import Rollout, Version, deployed
from outgrow.cluster.state import State
from outgrow.cluster.status import Backups, NodeStatus, Part, Status, judged
from outgrow.endpoints import Endpoints
from outgrow.engines import autoscaler, dashboard
from outgrow.engines.redis import cache as redis_cache
from outgrow.engines.redis import redis
from outgrow.engines.redis import sessions as redis_sessions
from outgrow.errors import FleetError, Misuse
from outgrow.supervisor import orphans, ports
from outgrow.supervisor.limits import Limits
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.node import Change, Node
from outgrow.supervisor.supervisor import Supervisor
from outgrow.topology import Topology
from outgrow.topology.complete import complete
from outgrow.topology.rules import warnings
from outgrow.workload import Address, Workload

if TYPE_CHECKING:
    from outgrow.cluster.replication import Replication

Tell = Callable[[Change], None]

GIVEN_UP_WITHIN_S = 5.0
"""So long after its time-out Patroni has taken a replica that hangs off the list of those who confirm."""

LOCAL = "127.0.0.1"


class Fleet:
    """Runs the application in `directory` as its topology says."""

    def __init__(self, topology: Topology, directory: Path) -> None:
        self._topology = topology
        self._state = State(directory)
        self._meter = Meter()
        self._since = time.time()
        self._nodes: dict[str, Node] = {}
        self._supervisor: Supervisor | None = None
        self._front: Front | None = None
        self._rollout: Rollout | None = None
        self._replication: Replication | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failovers = Failovers()
        self._place = self._state.placement()
        self._written = topology.application.count
        self._stop = asyncio.Event()

    async def run(self, *, tell: Tell, ready: Callable[[Status], None], stop: asyncio.Event) -> None:
        """Start everything, call `ready`, wait for `stop` or for `down`, end everything.

        Raises FleetBusy, PortTaken, NodeFailed, ApplicationBroken, EngineMissing, StateUnreadable or
        FleetError; whatever happens, nothing is left running.
        """
        self._stop = stop
        with self._state.locked():
            await asyncio.to_thread(self._end_orphans, tell)
            planned = await asyncio.to_thread(self._plan)
            endpoints.write(self._state.placement().endpoints, planned.document)
            control = Control(self._state.control, self)

            def told(change: Change) -> None:
                tell(change)
                control.tell(change)
                if self._replication is not None:
                    self._replication.heard(change)

            supervisor = Supervisor(
                Logs(self._state.logs), self._state.fleet, tell=told, noted=self._state.note
            )
            self._supervisor, self._nodes = supervisor, supervisor.nodes
            self._front = Front(supervisor, self._state, told)
            self._rollout = Rollout(supervisor, self._front)
            await self._watch_replicas()
            try:
                await control.open()
                if await _unless(stop, supervisor.start(planned.workloads)):
                    ready(self.status())
                    await stop.wait()
            finally:
                await _whatever_happens(self._end(supervisor, control))

    async def _watch_replicas(self) -> None:
        """As long as the database has some."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._replication = self._watching = None
        if plan.replicated(self._topology):
            from outgrow.cluster.replication import Replication
            from outgrow.engines.patroni.patroni import Patroni

            engine = Patroni(self._topology, self._place)
            passwords = endpoints.read_secrets(self._place.operator_secrets).passwords
            waits_s = _waits_s(self._topology)
            self._replication = Replication(
                engine, self._nodes, passwords, self._state.logs, waits_s, self._failovers
            )
            self._watching = asyncio.create_task(self._replication.run())

    def hand_over(self, names: Collection[str]) -> None:
        """One of these is the primary and about not to be, as somebody wants it."""
        for name in names:
            self._failovers.lost(time.monotonic(), name, "as planned", planned=True)

    def request_stop(self) -> None:
        """End as soon as possible."""
        self._stop.set()

    async def start(self, workloads: Sequence[Workload]) -> None:
        """Run these too. What runs already, or is done, is left alone. Raises what run raises."""
        if self._supervisor is None or self._stop.is_set():
            raise FleetError("the fleet is being stopped")
        failed = [node.workload.name for node in self._nodes.values() if node.state in ("failed", "waiting")]
        await self._supervisor.remove(failed)
        await self._supervisor.start([each for each in workloads if each.name not in self._nodes])

    async def remove(self, names: Collection[str]) -> None:
        """Run these no longer."""
        if self._supervisor is not None:
            await self._supervisor.remove(names)

    async def adopt(self, topology: Topology) -> None:
        """Be this topology: its endpoints have been published by whoever says so."""
        self._topology = topology
        await self._watch_replicas()
        self._state.epoch = endpoints.read(self._state.placement().endpoints).epoch
        self._state.note(self._state.notes)

    def keep_sessions(self, sessions: endpoints.Sessions) -> None:
        """Publish where sessions are from now on. Whoever asks for it has the processes obey."""
        self._publish(sessions=sessions)

    def keep_cache(self, cache: endpoints.Cache) -> None:
        """Publish where the cache is from now on, likewise."""
        self._publish(cache=cache)

    def _publish(self, **changes: Any) -> None:
        path = self._state.placement().endpoints
        before = endpoints.read(path)
        if replace(before, **changes) != before:
            endpoints.write(path, replace(before, **changes, epoch=before.epoch + 1))
            self._state.epoch = before.epoch + 1
            self._state.note(self._state.notes)

    async def become(self, topology: Topology) -> None:
        """Change what stands before the database to this topology's. Raises what Front.become raises."""
        wanted = changed(self._topology, topology)
        as_before = topology.application.count == self._written
        if wanted.autoscale.on and wanted.balancer.engine and as_before:
            wanted = _with_servers(wanted, self._topology.application.count)
        await self._become(wanted)
        self._written = topology.application.count
        await self._switch_autoscaler()
        if plan.replicated(self._topology) and plan.replicated(topology):
            await self._copies(topology.database.replicas)

    async def _copies(self, replicas: int | None) -> None:
        """So many replicas, of a database that has some."""
        if replicas == self._topology.database.replicas or self._supervisor is None or self._front is None:
            return
        from outgrow.cluster import copies

        wanted = replace(self._topology, database=replace(self._topology.database, replicas=replicas))
        await self._unless_stopped(
            copies.become(self._supervisor, self._front, self._state, wanted, self._place)
        )
        self._topology = wanted
        await self._watch_replicas()

    async def count(self, servers: int) -> None:
        """So many application servers, until outgrow.toml says another number. Raises like become."""
        await self._become(_with_servers(self._topology, servers))
        self._state.scaled = (self._written, servers)
        self._state.note(self._state.notes)

    async def _become(self, wanted: Topology) -> None:
        if self._front is None:
            raise FleetError("the fleet is being stopped")
        await self._unless_stopped(self._front.become(self._topology, wanted, self._place))
        self._topology = wanted

    async def deploy(self, topology: Topology, release: int) -> None:
        """Run this release with the application's settings of this topology.

        Raises Misuse, or what is wrong with it (Rollout.run); by then the version before runs again.
        """
        if self._rollout is None:
            raise FleetError("the fleet is being stopped")
        line, place = self._state.releases, self._place
        before = Version(self._topology, place._replace(release=line[-1] if line else 0))
        after = Version(
            deployed(self._topology, topology), place._replace(release=release, slot=1 - place.slot)
        )
        try:
            await self._unless_stopped(self._rollout.run(before, after))
            self._topology, self._place = after
            self._state.releases = releases.added(line, release)
            self._state.note(self._state.notes)
            await self._switch_autoscaler()
        finally:
            await asyncio.to_thread(releases.tidy, self._place, self._state.releases, release)

    async def _switch_autoscaler(self) -> None:
        """It comes with the first target in outgrow.toml, and goes with the last."""
        assert self._supervisor is not None
        wanted = plan.autoscaler(self._topology, self._place)
        if not wanted:
            await self._supervisor.remove([autoscaler.NAME])
        elif autoscaler.NAME not in self._nodes:
            await self._unless_stopped(self._supervisor.start(wanted))

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Raises FleetError when the fleet is stopped before it is done."""
        if not await _unless(self._stop, work):
            raise FleetError("the fleet is being stopped")

    @property
    def topology(self) -> Topology:
        """What it is now."""
        return self._topology

    async def _end(self, supervisor: Supervisor, control: Control) -> None:
        try:
            if self._watching is not None:
                self._watching.cancel()
            # The balancers first: they let what is under way end while there are servers for it.
            await supervisor.remove([each for each in self._nodes if self._tier(each) == "balancer"])
            await supervisor.stop()
        finally:
            self._state.ended()
            await control.close()

    def _tier(self, name: str) -> str:
        return self._nodes[name].workload.tier

    def status(self, *, measured: bool = True) -> Status:
        """How it is now; without `measured` no node's CPU and memory."""
        application = self._topology.application
        return Status(
            application=application.name,
            stage=self._topology.stage,
            epoch=self._state.epoch,
            url=f"{self._scheme()}://{_in_url(application.host)}:{application.port}",
            since=self._since,
            supervisor_pid=os.getpid(),
            nodes=tuple(self._node(name, node, measured) for name, node in list(self._nodes.items())),
            dashboard=self._dashboard_url(),
            warnings=self._warnings(),
            release=next(reversed(self._state.releases), 0),
            autoscale=self._state.shown() if self._topology.autoscale.on else None,
            replication=self._topology.database.replication if self._replication is not None else "",
            failovers=self._failovers.kept,
            backups=self._backups(),
        )

    def _scheme(self) -> str:
        balancer = self._topology.balancer
        return "https" if balancer.engine is not None and balancer.tls.enabled else "http"

    def _backups(self) -> Backups | None:
        runs = self._topology.backup.directory is not None and plan.runs_postgres(self._topology)
        shown = self._state.shown_backups() if runs else None
        return judged(shown, self._topology.backup.behind, time.time()) if shown is not None else None

    def _warnings(self) -> tuple[str, ...]:
        why = self._supervisor.limits.why_not if self._supervisor is not None else ""
        limited = (f"CPU is not limited, as outgrow.toml wants it ({why})",) if why else ()
        backups = self._backups()
        wrong = backups.wrong if backups is not None else ()
        paused = self._replication is not None and self._replication.view.paused
        waits = ("the database has no automatic failover (`outgrow resume` ends that)",) if paused else ()
        away = self._replication.troubles if self._replication is not None else ()
        return (*map(str, warnings(self._topology)), *limited, *wrong, *waits, *away, *self._unconfirmed())

    def _unconfirmed(self) -> tuple[str, ...]:
        """What somebody ought to know whose commits are to be confirmed."""
        database, replication = self._topology.database, self._replication
        alone = replication is not None and replication.view.primary and not replication.view.synchronous
        if not alone or database.replication == "async":
            return ()
        then = "writes fail" if database.sync_strict else "writes are on the primary alone"
        return (f"no replica confirms commits (replication = {database.replication}): {then}",)

    def _dashboard_url(self) -> str | None:
        node = self._nodes.get(dashboard.NAME)
        return f"http://{node.workload.listen[0]}" if node is not None else None

    def _node(self, name: str, node: Node, measured: bool) -> NodeStatus:
        workload = node.workload
        pid = node.pid
        cpu, memory = self._meter.look(pid) if measured and pid is not None else (None, None)
        part = self._replication.part(name) if self._replication is not None else Part()
        return NodeStatus(
            name=name,
            kind=workload.kind,
            state=node.state,
            pid=pid,
            address=_address(workload),
            own=str(workload.own) if workload.own is not None else None,
            tier=workload.tier,
            restarts=node.restarts,
            since=node.since,
            cpu=cpu,
            memory=memory,
            text=node.text,
            role=part.role,
            timeline=part.timeline,
            lag=part.lag,
            kept=part.kept,
        )

    def _end_orphans(self, tell: Tell) -> None:
        left = self._state.orphans()
        if left:
            tell(Change("supervisor", "stopping", f"ending {len(left)} processes that a crash has left"))
            orphans.end(left)
            tell(Change("supervisor", "done", "ended them"))
        Limits(self._state.fleet).remove()

    def _plan(self) -> plan.Plan:
        before = self._state.published()
        self._topology = self._where_the_data_is(before)
        if self._topology.autoscale.on and self._topology.balancer.engine:
            self._topology = _with_servers(self._topology, self._scaled())
        self._place = self._state.placement(self._state.free_host(*plan.needs(self._topology)))
        data = releases.data(self._place, self._topology)
        self._state.releases = releases.current(self._place, self._state.releases, data)
        releases.tidy(self._place, self._state.releases, releases.number(self._place))
        growing = self._state.growing()
        moving = plan.sessions_under_way(self._topology, before) if growing else None
        away = moving is not None or plan.runs_sessions(self._topology)
        self._state.keep_secrets(self._topology)
        planned = plan.plan(
            self._topology,
            self._place,
            epoch=self._state.next_epoch(before.epoch if before is not None else 0),
            dashboard_port=self._dashboard_port(),
            sessions_host=self._state.free_host((redis_sessions.NODE, redis.PORT)) if away else LOCAL,
            cache_host=self._cache_host(),
            moving=moving,
        )
        return planned._replace(document=plan.continued(planned.document, before))

    def _cache_host(self) -> str:
        if not plan.runs_cache(self._topology):
            return LOCAL
        return self._state.free_host(*redis_cache.needs(self._topology))

    def _scaled(self) -> int:
        """How many servers the autoscaler had last, unless outgrow.toml says another number since then."""
        written, ran = self._state.scaled
        settings = self._topology.autoscale
        return min(
            max(ran if written == self._written else self._written, settings.minimum), settings.maximum
        )

    def _where_the_data_is(self, before: Endpoints | None) -> Topology:
        """The topology, unless the data is elsewhere: a move took it there. Raises Misuse then.

        A move that was cut off may have changed outgrow.toml or not, and its target may hold a part of
        the data: the fleet starts where the data is, and the move can be finished or taken back.
        """
        wanted = self._topology
        if before is None or wanted.database.url is not None:
            return wanted
        copies = len(before.database.shards[0].nodes) - 1
        same = before.database.engine == wanted.database.engine
        if same and bool(copies) == bool(wanted.database.copies):
            return wanted
        if self._state.growing():
            database = replace(wanted.database, replicas=copies)
            return complete(replace(wanted, stage=before.stage, database=database))
        if same:
            return self._fresh(wanted, copies)
        if not before.moved:
            return wanted
        raise Misuse(
            f"the data of {wanted.application.name} was moved to stage {before.stage}, "
            f"and this is stage {wanted.stage}",
            hint=f'write stage = "{before.stage}" in outgrow.toml; `outgrow shrink` brings the data back',
        )

    def _fresh(self, wanted: Topology, copies: int) -> Topology:
        """With replicas or without: the data is not in both. Raises Misuse when it is elsewhere."""
        place = self._state.placement()
        data = place.data / ("replicated" if copies else "postgres")
        if wanted.database.engine != "postgres" or not data.exists():
            return wanted
        has, lacks = ("with", "without") if copies else ("without", "with")
        way = "`outgrow shrink`" if copies else "`outgrow grow replication`"
        raise Misuse(
            f"the data of {wanted.application.name} is in a database {has} replicas, and this is one {lacks}",
            hint=f"start it as it was, then {way} moves it; to give the data up, remove {data}",
        )

    def _dashboard_port(self) -> int:
        """Its usual port; another where that is taken and nobody has asked for it by name."""
        usual = dashboard.usual_port(self._topology)
        asked_for = self._topology.dashboard.port is not None
        return usual if asked_for else ports.free_port(Address(dashboard.HOST, usual))


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work; give it up when `stop` is set first. Returns whether it was done."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        return working.done() and not stop.is_set()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _whatever_happens(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end even if the task around it is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
        except BaseException:
            break
    await task
    if cancelled:
        raise asyncio.CancelledError


def _waits_s(topology: Topology) -> float | None:
    """How long a commit may wait for a replica; None where none waits."""
    database = topology.database
    if database.replication == "async":
        return None
    return database.sync_timeout + (0 if database.sync_strict else GIVEN_UP_WITHIN_S)


def _with_servers(topology: Topology, servers: int) -> Topology:
    return replace(topology, application=replace(topology.application, servers=servers))


def _address(workload: Workload) -> str | None:
    """Where it can be reached."""
    probe = workload.readiness
    address = probe.address if probe is not None else None
    return str(workload.serves or next(iter((*workload.listen, *workload.claims)), address) or "") or None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

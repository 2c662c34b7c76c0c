"""What a drill works with while the load runs: the fleet, the clock, and faults that are noted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from outgrow import cluster
from outgrow.chaos.faults.fault import Fault, injected
from outgrow.chaos.faults.left import Left
from outgrow.chaos.history import Attempt, Happening, Kind
from outgrow.chaos.verdict import RELEASE, RUNS
from outgrow.chaos.watch import Watch
from outgrow.cluster import NodeStatus, Status, control, releases
from outgrow.cluster.control import Request
from outgrow.cluster.state import State
from outgrow.errors import FleetError, NodeFailed, OutgrowError
from outgrow.load.client import Answer, Failure, Pool
from outgrow.load.target import resolve
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note
from outgrow.topology import Topology

ASKED_EVERY_S = 0.05
PROBE_EVERY_S = 0.05
PROBE_TIMEOUT_S = 2.0


class Place(NamedTuple):
    """The fleet that a drill hurts: where it lives, what it runs, and what the caller has asked for."""

    directory: Path
    topology: Topology
    events: int | None = None


class Release(NamedTuple):
    """Its number, and the folder of its code."""

    number: int
    folder: Path


class Scene:
    """One drill, from the moment at which the load begins."""

    def __init__(self, place: Place, left: Left, tell: Callable[[Happening], None]) -> None:
        self.directory, self.topology = place.directory, place.topology
        self._events = place.events
        self.probed: list[Attempt] = []
        self.restored: dict[str, int] = {}
        self.count: Callable[[str], Awaitable[dict[str, int]]]
        """How often each mark that was written until now is there at a URL. The load sets it."""
        self.left = left
        self.began = monotonic()
        self.watch = Watch(self.directory, self.now, tell)

    def now(self) -> float:
        """Seconds from the beginning of the load."""
        return monotonic() - self.began

    def events(self, usual: int) -> int:
        """How often the drill does what it does."""
        return usual if self._events is None else self._events

    async def status(self) -> Status:
        """How the fleet is."""
        return await cluster.status(self.directory, measured=False)

    async def nodes(self, tier: str) -> list[NodeStatus]:
        """Those of a tier that run."""
        return [each for each in (await self.status()).nodes if each.tier == tier and each.pid is not None]

    async def servers(self) -> list[str]:
        """The application servers, without their further processes."""
        return sorted({each.name.partition(".")[0] for each in await self.nodes("application")})

    async def processes(self, server: str) -> list[Note]:
        """All processes of a server. Raises OutgrowError when it does not run."""
        nodes = (await self.status()).nodes
        mine = [each for each in nodes if each.pid is not None and each.name.partition(".")[0] == server]
        if not mine:
            raise OutgrowError(f"{server} does not run", hint="`outgrow status` shows what does")
        return [Note(each.pid, orphans.start_time(each.pid) or 0) for each in mine if each.pid is not None]

    async def addresses(self, tier: str) -> list[tuple[str, int]]:
        """Host and port of each node of a tier. Raises OutgrowError when it has none."""
        found = [str(each.address).rpartition(":") for each in await self.nodes(tier) if each.address]
        if not found:
            raise OutgrowError(f"nothing serves as {tier}", hint="`outgrow status` shows what runs")
        return [(host, int(port)) for host, _, port in found]

    @asynccontextmanager
    async def fault(self, fault: Fault, node: str) -> AsyncIterator[float]:
        """The fault is there within the block; the moment at which it began."""
        async with injected(fault, self.left, self.now) as began:
            yield self.watch.note("fault", node, fault.says, began)
        if fault.lasts:
            self.watch.note("undo", node, "undone")

    async def until(self, condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
        """Wait for it; whether it came true in time. A fleet that does not answer is no answer."""
        deadline = self.now() + within_s
        while self.now() < deadline:
            with contextlib.suppress(FleetError, TimeoutError):
                if await condition():
                    return True
            await asyncio.sleep(ASKED_EVERY_S)
        return False

    async def until_ready(self, name: str, old_pid: int | None, within_s: float) -> bool:
        """Until a node is ready again as another process."""

        async def again() -> bool:
            nodes = (await self.status()).nodes
            return any(n.name == name and n.state == "ready" and n.pid != old_pid for n in nodes)

        return await self.until(again, within_s)

    async def until_out(self, server: str, within_s: float) -> bool:
        """Until a balancer has it out."""
        return await self.until(lambda: self._told("out", server), within_s)

    async def until_in(self, server: str, within_s: float) -> bool:
        """Until every balancer has it in."""
        return await self.until(lambda: self._told("in", server), within_s)

    async def _told(self, kind: Kind, server: str) -> bool:
        said = [each for each in self.watch.happenings if each.node == server and each.kind in ("out", "in")]
        return bool(said) and said[-1].kind == kind

    async def rest(self, seconds: float) -> None:
        """Let the load go on for so long."""
        await asyncio.sleep(seconds)

    async def become(self, topology: Topology) -> None:
        """The running fleet becomes this, and outgrow.toml stays as it is. Raises what the fleet raises."""
        await control.change(self.directory, Request("become", topology=topology), tell=lambda change: None)

    @asynccontextmanager
    async def changed(self) -> AsyncIterator[None]:
        """Within the block the fleet may `become` another; after it, it is as it was."""
        self.left.add(changed=True)
        try:
            yield
        finally:
            await asyncio.shield(asyncio.ensure_future(self.become(self.topology)))
            self.left.forget(changed=True)

    @asynccontextmanager
    async def another_release(self) -> AsyncIterator[Release]:
        """A copy of the release that runs, to deploy within the block; after it, that release runs again.

        Raises OutgrowError when none is kept of what runs.
        """
        state = State(self.directory)
        if not (ran := state.ran()):
            raise OutgrowError(
                "no release of what runs is kept, to go back to",
                hint="`outgrow deploy` makes one of any size",
            )
        place = state.placement()
        copy = await asyncio.to_thread(releases.again, place, ran[-1])
        self.left.add(release=(copy, ran[-1]))
        try:
            yield Release(copy, place._replace(release=copy).code)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._back(copy, ran[-1])))
            self.left.forget(release=True)

    async def _back(self, copy: int, before: int) -> None:
        if await leave_release(self.directory, self.topology, copy, before):
            self.watch.note("note", RELEASE, f"{before} {RUNS}")

    async def deploy(self, release: int, topology: Topology) -> None:
        """Bring it to every server. What becomes of it is noted."""
        request = Request("deploy", topology=topology, release=release)
        try:
            await control.change(self.directory, request, tell=lambda change: None)
        except NodeFailed as error:
            self.watch.note("note", RELEASE, f"{release} has gone again: {error.message}")
        else:
            self.watch.note("note", RELEASE, f"{release} {RUNS}")

    async def probe(self, url: str, name: str) -> None:
        """Ask this address for its health on new connections, until cancelled; it is recorded as `name`."""
        target = resolve(url)
        data = f"GET /health HTTP/1.1\r\nhost: {target.host}\r\nconnection: close\r\n\r\n".encode()
        while True:
            sent = self.now()
            outcome = await _ask(Pool(target, maximum=1, timeout_s=PROBE_TIMEOUT_S), data)
            self.probed.append(
                Attempt(
                    request=name,
                    method="GET",
                    intended=sent,
                    sent=sent,
                    ended=self.now(),
                    failure=_failure(outcome),
                )
            )
            await asyncio.sleep(PROBE_EVERY_S)


async def leave_release(directory: Path, topology: Topology, copy: int, before: int) -> bool:
    """Run the release before again if the copy runs. Returns whether it did. Raises what the fleet raises."""
    # Behind a deploy that goes on though whoever asked for it was stopped: one change is done at a time.
    await control.change(directory, Request("remove"), tell=lambda change: None)
    if State(directory).ran()[-1:] != (copy,):
        return False
    request = Request("deploy", topology=topology, release=before)
    await control.change(directory, request, tell=lambda change: None)
    return True


async def _ask(pool: Pool, data: bytes) -> Answer | Failure:
    answered: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
    try:
        pool.send(data, lambda outcome: None if answered.done() else answered.set_result(outcome))
        return await answered
    finally:
        await pool.close()


def _failure(outcome: Answer | Failure) -> str:
    if isinstance(outcome, Failure):
        return outcome.kind
    return "" if outcome.status == 200 else f"status {outcome.status}"

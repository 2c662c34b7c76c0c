"""Runs a list of workloads as one whole.

start:  sockets ─► in order of `after`, files first:  job: run to its end
                                                      service: spawn ─► ready ─► watched
watch:  a service ends ─► back-off ─► spawn ─► ready … until it has died too often
stop:   who is needed by others last: signal, grace, kill; then whatever else bears the fleet's mark
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from itertools import groupby
from typing import Any, Literal, NamedTuple

import msgspec

from outgrow.errors import EXIT_TOLD, FleetError, NodeFailed, OutgrowError, told
from outgrow.supervisor import handover, orphans, ports, process
from outgrow.supervisor.backoff import Backoff
from outgrow.supervisor.limits import Limits
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.order import in_order, to_stop
from outgrow.supervisor.probe import until_ready
from outgrow.workload import Address, Workload

TAIL_LINES, TOLD_LINES, READ_LINES = 12, 200, 10_000
ACCESS_LINE = frozenset({"method", "path", "status"})
"""What each line of an access log tells (runtime/telemetry/logs.py)."""

ROTATE_EVERY_S = 1.0
LEFT_GRACE_S = 2.0
"""For what outlives the node that has started it: that one has had its time."""

State = Literal["waiting", "starting", "ready", "restarting", "failed", "stopping", "stopped", "done"]


class Change(NamedTuple):
    """A node has changed its state."""

    node: str
    state: State
    text: str = ""


class Node:
    """One workload and what has become of it. `since` is Unix time.

    `opened` and `spawned` tell on a monotonic clock when its sockets and its process are from.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.state: State = "waiting"
        self.text = ""
        self.since = time.time()
        self.restarts = 0
        self.process: process.Process | None = None
        self.sockets: list[socket.socket] = []
        self.claims: list[socket.socket] = []
        self.opened = self.spawned = 0.0
        self.watch: asyncio.Task[None] | None = None
        self.log_start = 0

    @property
    def pid(self) -> int | None:
        """The pid, while it runs."""
        return self.process.pid if self.process is not None and self.process.running else None

    def close_sockets(self) -> None:
        """From now on connections are refused, once the child has closed its copies too."""
        for sockets in (self.sockets, self.claims):
            while sockets:
                sockets.pop().close()


class Supervisor:
    """Runs workloads. `fleet` marks every child, so that orphans.find knows it.

    `tell` hears each change; it must not raise. `noted` is called with all notes whenever a child is
    born or has ended; an OSError of it (a full disk) is passed over, since the mark is enough.
    """

    def __init__(
        self,
        logs: Logs,
        fleet: str,
        *,
        tell: Callable[[Change], None] = lambda change: None,
        noted: Callable[[Mapping[str, orphans.Note]], None] = lambda notes: None,
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.limits = Limits(fleet)
        self._logs = logs
        self._fleet = fleet
        self._tell = tell
        self._noted = noted
        self._stopping = False
        self._rotation: asyncio.Task[None] | None = None

    async def start(self, workloads: Sequence[Workload]) -> None:
        """Start them all, each after what it names. Returns when every service is ready.

        May be called again with more, which may come after what runs already. Raises PortTaken,
        NodeFailed, FleetError or what a node has told of itself (ApplicationBroken); what has been
        started by then, also when cancelled, runs on until `stop` or `remove` is called.
        """
        there = {*self.nodes, *(each.name for each in workloads)}
        known = [
            # What it once waited for may have been removed since.
            msgspec.structs.replace(each, after=tuple(name for name in each.after if name in there))
            for each in (node.workload for node in self.nodes.values())
        ]
        added = [each for each in in_order([*known, *workloads]) if each.name not in self.nodes]
        if self._rotation is None:
            self._rotation = asyncio.create_task(self._rotate())
        self.nodes |= {workload.name: Node(workload) for workload in added}
        for workload in sorted(added, key=_everywhere_first):
            self._open(self.nodes[workload.name])
        # Equals start side by side: eight servers take hardly longer than one.
        for _, equals in groupby(added, key=lambda each: (each.tier, each.kind, each.after)):
            starts = [self._start_or_fail(self.nodes[each.name]) for each in equals]
            for outcome in await asyncio.gather(*starts, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    def _open(self, node: Node) -> None:
        """Its sockets. Where another node of this fleet has the address, it joins that one."""
        holders = [each.workload for each in self.nodes.values() if each.sockets or each.claims]
        taken = [address for each in holders for address in _addresses(each)]

        def joins(address: Address) -> bool:
            return any(ports.overlap(address, other) for other in taken)

        for address in node.workload.listen:
            node.sockets.append(ports.listen(address, joins=joins(address)))
        for address in node.workload.claims:
            node.claims.append(ports.claim(address, joins=joins(address)))
        node.opened = time.monotonic()

    async def remove(self, names: Collection[str]) -> None:
        """End these nodes and forget them; names that nobody has are passed over.

        Addresses that they share with others are left to those first.
        """
        gone = [node for name, node in self.nodes.items() if name in names]
        await handover.leave(self.nodes, names)
        for group in to_stop([node.workload for node in gone]):
            await asyncio.gather(*(self._remove(each.name) for each in group))
        for address in {each for node in gone for each in _addresses(node.workload)}:
            handover.settled(self.nodes, address)
        self._note()

    async def _remove(self, name: str) -> None:
        node = self.nodes[name]
        await _cancelled(node.watch)
        await self._end(node)
        del self.nodes[name]
        host = node.workload.host
        if node.workload.cpu is not None and not self._on(host):
            await asyncio.to_thread(self.limits.remove, host)

    async def replace(self, workload: Workload) -> None:
        """Run this in the place of the node of its name, on the same sockets: who connects meanwhile waits.

        Raises what start raises.
        """
        node = self.nodes[workload.name]
        await _cancelled(node.watch)
        if node.process is not None and node.process.running:
            self._set(node, "stopping")
            await node.process.stop(node.workload.stop.signal, node.workload.stop.grace_s)
        node.workload = workload
        await self._start_or_fail(node)

    def rename(self, names: Mapping[str, str]) -> None:
        """Nodes get another name, and keep their place and all they have."""
        renamed = {names.get(name, name): node for name, node in self.nodes.items()}
        for name, node in renamed.items():
            node.workload = msgspec.structs.replace(node.workload, name=name)
        self.nodes.clear()
        self.nodes.update(renamed)
        self._note()

    def _on(self, host: str) -> list[Node]:
        """Who runs on an emulated host."""
        return [node for node in self.nodes.values() if node.workload.host == host]

    def limit(self, name: str, cpu: float | None) -> None:
        """From now on the host of this node has so many cores; None: no limit."""
        node = self.nodes[name]
        if node.workload.cpu is None and node.pid is not None:
            self.limits.join(node.workload.host, node.pid)
        node.workload = msgspec.structs.replace(node.workload, cpu=cpu)
        self.limits.set(node.workload.host, cpu)

    async def stop(self) -> None:
        """End everything; what others need ends after them. However this ends, no child is left.

        Takes at most the sum of the longest grace of each group (see order.to_stop). When cancelled,
        it kills what still runs. Raises FleetError when a child cannot be ended.
        """
        self._stopping = True
        try:
            await self._end_tasks()
            for group in to_stop([node.workload for node in self.nodes.values()]):
                await asyncio.gather(*(self._end(self.nodes[each.name]) for each in group))
            await asyncio.to_thread(self._sweep)
            await asyncio.to_thread(self.limits.remove)
            self._note()
        finally:
            for node in self.nodes.values():
                node.close_sockets()
                if node.process is not None:
                    node.process.kill()

    async def _end_tasks(self) -> None:
        """Nothing is started again from now on."""
        tasks = [self._rotation, *(node.watch for node in self.nodes.values())]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _end(self, node: Node) -> None:
        node.close_sockets()
        if node.process is not None and node.process.running:
            self._set(node, "stopping")
            await node.process.stop(node.workload.stop.signal, node.workload.stop.grace_s)
            self._note()
        if node.state not in ("waiting", "done", "failed"):
            self._set(node, "stopped")

    def _sweep(self) -> None:
        """What a node has started and set free, so that it was not in its group any more."""
        left = orphans.find(self._fleet, ())
        orphans.end(msgspec.structs.replace(each, grace_s=LEFT_GRACE_S) for each in left)

    async def _start_or_fail(self, node: Node) -> None:
        try:
            await self._start(node)
        except OutgrowError:
            self._set(node, "failed")
            raise

    async def _start(self, node: Node) -> None:
        if node.workload.kind == "job":
            await self._run_job(node)
        else:
            await self._bring_up(node)
            node.watch = asyncio.create_task(self._watch(node))

    async def _run_job(self, node: Node) -> None:
        self._set(node, "starting")
        code = await self._spawn(node).wait()
        self._note()
        if code != 0:
            raise self._failure(node, code, "failed")
        self._set(node, "done")

    async def _bring_up(self, node: Node) -> None:
        """Spawn and wait until it is ready. Raises NodeFailed or what it told, when it is not to be."""
        self._set(node, "starting")
        child = self._spawn(node)
        try:
            code = await self._until_ready_or_ended(node, child)
        except OSError as error:
            await child.stop(node.workload.stop.signal, node.workload.stop.grace_s)
            self._note()
            raise self._not_ready(node, error) from error
        if code is not None:
            self._note()
            raise self._failure(node, code, "ended while it started")
        self._set(node, "ready")

    async def _until_ready_or_ended(self, node: Node, child: process.Process) -> int | None:
        """None when it is ready, else its exit code. Raises what until_ready raises."""
        probe = node.workload.readiness
        if probe is None:
            return None
        ended = asyncio.ensure_future(child.wait())
        ready = asyncio.ensure_future(until_ready(probe, self._environment(node.workload)))
        try:
            await asyncio.wait((ended, ready), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            ready.result()
            return None
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.gather(ended, ready, return_exceptions=True)

    async def _watch(self, node: Node) -> None:
        """Bring the service up again whenever it ends, until it has ended too often."""
        backoff = Backoff(node.workload.restart)
        reason = await self._end_of(node)
        while (delay_s := backoff.after_death(time.monotonic())) is not None:
            node.restarts += 1
            self._set(node, "restarting", f"{reason}; again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)
            try:
                await self._bring_up(node)
                backoff.ready()
                reason = await self._end_of(node)
            except OutgrowError as error:
                reason = error.message.splitlines()[0]
        # Nobody will answer: better refused than left to wait in the backlog.
        node.close_sockets()
        self._set(node, "failed", f"{reason}; {backoff.verdict()}")

    async def _end_of(self, node: Node) -> str:
        """Wait until it has ended; returns how."""
        assert node.process is not None
        code = await node.process.wait()
        self._note()
        return describe(code)

    def _spawn(self, node: Node) -> process.Process:
        workload = node.workload
        if self._stopping:
            raise FleetError(f"node {workload.name} is not started: its fleet is being stopped")
        try:
            process.write_files(workload.files)
            node.log_start = self._logs.size(workload.name)
            with self._logs.open(workload.name) as log:
                node.process = process.start(
                    [*(process.unprivileged() if workload.unprivileged else ()), *workload.argv],
                    self._environment(workload),
                    output=log,
                    directory=workload.directory,
                    sockets=node.sockets,
                )
        except OSError as error:
            raise NodeFailed(workload.name, f"cannot be started: {error}") from error
        node.spawned = time.monotonic()
        if workload.cpu is not None:
            self.limits.join(workload.host, node.process.pid)
            if all(each.state != "ready" for each in self._on(workload.host)):
                self.limits.set(workload.host, None)  # its start is not what is measured
        self._note()
        return node.process

    def _environment(self, workload: Workload) -> dict[str, str]:
        return {**os.environ, **workload.environment, orphans.MARK: self._fleet}

    def _failure(self, node: Node, code: int, what: str) -> OutgrowError:
        tail = self._tail(node)
        if code == EXIT_TOLD:
            # Its predecessor may be writing into the same log.
            for line in reversed(self._tail(node, TOLD_LINES)):
                if (error := told(line)) is not None:
                    return error
        return NodeFailed(node.workload.name, f"{what} ({describe(code)})", log_tail=tail)

    def _not_ready(self, node: Node, error: OSError) -> NodeFailed:
        probe = node.workload.readiness
        assert probe is not None
        if isinstance(error, TimeoutError):
            text = f"was not ready within {probe.timeout_s:g} s"
        else:
            text = f"cannot be asked whether it is ready: {error}"
        return NodeFailed(node.workload.name, text, log_tail=self._tail(node))

    def _tail(self, node: Node, lines: int = TAIL_LINES) -> list[str]:
        """What it said last. A process that is being replaced writes to the same log: the requests that it
        answers meanwhile say nothing of why another has failed."""
        said = self._logs.tail(node.workload.name, READ_LINES, since=node.log_start)
        return [line for line in said if not _keys(line) >= ACCESS_LINE][-lines:]

    def _set(self, node: Node, state: State, text: str = "") -> None:
        node.state, node.text = state, text
        if state == "ready" and node.workload.cpu is not None:
            self.limits.set(node.workload.host, node.workload.cpu)
        node.since = time.time()
        self._tell(Change(node.workload.name, state, text))

    def _note(self) -> None:
        with contextlib.suppress(OSError):
            self._noted(
                {
                    name: orphans.note(node.pid, node.workload.stop)
                    for name, node in self.nodes.items()
                    if node.pid is not None
                }
            )

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_EVERY_S)
            await asyncio.to_thread(self._logs.rotate)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _addresses(workload: Workload) -> tuple[Address, ...]:
    return (*workload.listen, *workload.claims)


def _everywhere_first(workload: Workload) -> bool:
    """A socket on every address is bound before those on one: only then does it find out who has one."""
    return all(each.host not in ports.EVERYWHERE for each in _addresses(workload))


def describe(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"


def _keys(line: str) -> Set[str]:
    """The keys of a line that is a JSON object, else none."""
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(line, type=dict[str, Any]).keys()
    return frozenset()

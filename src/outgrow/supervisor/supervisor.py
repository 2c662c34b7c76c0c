"""Runs a list of workloads as one whole.

start:  files ─► sockets ─► in order of `after`:  job: run to its end
                                                  service: spawn ─► ready ─► watched
watch:  a service ends ─► back-off ─► spawn ─► ready … until it has died too often
stop:   in reverse order: signal, grace, kill
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from outgrow.errors import EXIT_TOLD, FleetError, NodeFailed, OutgrowError, told
from outgrow.supervisor import orphans, ports, process
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.probe import until_ready
from outgrow.workload import Workload

TAIL_LINES = 12
ROTATE_EVERY_S = 5.0

State = Literal["waiting", "starting", "ready", "restarting", "failed", "stopping", "stopped", "done"]


class Change(NamedTuple):
    """A node has changed its state."""

    node: str
    state: State
    text: str = ""


class Node:
    """One workload and what has become of it. `since` is Unix time."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.state: State = "waiting"
        self.text = ""
        self.since = time.time()
        self.restarts = 0
        self.process: process.Process | None = None
        self.sockets: list[socket.socket] = []
        self.watch: asyncio.Task[None] | None = None
        self.log_start = 0

    @property
    def pid(self) -> int | None:
        """The pid, while it runs."""
        return self.process.pid if self.process is not None and self.process.running else None


class Supervisor:
    """Runs workloads. `tell` hears each change; `noted` is called with all notes whenever a child is born or dies."""

    def __init__(
        self,
        logs: Logs,
        fleet: str,
        *,
        tell: Callable[[Change], None] = lambda change: None,
        noted: Callable[[Mapping[str, orphans.Note]], None] = lambda notes: None,
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self._logs = logs
        self._fleet = fleet
        self._tell = tell
        self._noted = noted
        self._rotation: asyncio.Task[None] | None = None

    async def start(self, workloads: Sequence[Workload]) -> None:
        """Start them all, each after what it names. Returns when every service is ready.

        Raises PortTaken, NodeFailed or ApplicationBroken; what has been started by then runs on until
        `stop` is called.
        """
        ordered = in_order(workloads)
        self._rotation = asyncio.create_task(self._rotate())
        for workload in ordered:
            node = self.nodes[workload.name] = Node(workload)
            node.sockets = [ports.listen(address) for address in workload.listen]
        for workload in ordered:
            node = self.nodes[workload.name]
            if workload.kind == "job":
                await self._run_job(node)
            else:
                await self._bring_up(node)
                node.watch = asyncio.create_task(self._watch(node))

    async def stop(self) -> None:
        """End everything, last started first. Whatever happens, no child is left."""
        for node in reversed(self.nodes.values()):
            if node.watch is not None:
                node.watch.cancel()
                await asyncio.gather(node.watch, return_exceptions=True)
                node.watch = None
            if node.process is not None and node.process.running:
                self._set(node, "stopping")
                await node.process.stop(node.workload.stop.signal, node.workload.stop.grace_s)
            if node.process is not None:
                node.process.kill_group()
                node.process = None
                self._note()
            for each in node.sockets:
                each.close()
            if node.state not in ("done", "failed"):
                self._set(node, "stopped")
        if self._rotation is not None:
            self._rotation.cancel()
            await asyncio.gather(self._rotation, return_exceptions=True)

    async def _run_job(self, node: Node) -> None:
        self._set(node, "starting")
        child = self._spawn(node)
        code = await child.wait()
        child.kill_group()
        self._note()
        if code != 0:
            self._set(node, "failed")
            raise self._failure(node, code, "failed")
        self._set(node, "done")

    async def _bring_up(self, node: Node) -> None:
        """Spawn and wait until it is ready. Raises NodeFailed or ApplicationBroken when it is not to be."""
        self._set(node, "starting")
        child = self._spawn(node)
        probe = node.workload.readiness
        ended = asyncio.ensure_future(child.wait())
        readiness = asyncio.ensure_future(until_ready(probe) if probe is not None else asyncio.sleep(0))
        try:
            await asyncio.wait((ended, readiness), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                self._note()
                raise self._failure(node, ended.result(), "ended while it started")
            if readiness.exception() is not None:
                limit = probe.timeout_s if probe is not None else 0
                await child.stop(node.workload.stop.signal, node.workload.stop.grace_s)
                self._note()
                raise NodeFailed(
                    node.workload.name, f"was not ready within {limit:g} s", log_tail=self._tail(node)
                )
        finally:
            ended.cancel()
            readiness.cancel()
            await asyncio.gather(ended, readiness, return_exceptions=True)
        self._set(node, "ready")

    async def _watch(self, node: Node) -> None:
        """Bring the service up again whenever it ends, until it has ended too often."""
        restart = node.workload.restart
        deaths: deque[float] = deque(maxlen=restart.limit)
        while True:
            assert node.process is not None
            code = await node.process.wait()
            node.process.kill_group()
            self._note()
            reason = describe(code)
            while True:
                deaths.append(time.monotonic())
                if len(deaths) == restart.limit and deaths[-1] - deaths[0] < restart.window_s:
                    self._set(
                        node, "failed", f"{reason}; died {restart.limit} times within {restart.window_s:g} s"
                    )
                    return
                recent = sum(1 for death in deaths if deaths[-1] - death < restart.window_s)
                delay = min(restart.delay_max_s, restart.first_delay_s * 2 ** (recent - 1))
                node.restarts += 1
                self._set(node, "restarting", f"{reason}; again in {delay:.1f} s")
                await asyncio.sleep(delay)
                try:
                    await self._bring_up(node)
                    break
                except (OutgrowError, OSError) as error:
                    reason = str(error).splitlines()[0]

    def _spawn(self, node: Node) -> process.Process:
        workload = node.workload
        environment = {**os.environ, **workload.environment, orphans.MARK: self._fleet}
        process.write_files(workload)
        node.log_start = self._logs.size(workload.name)
        with self._logs.open(workload.name) as log:
            try:
                node.process = process.start(workload, environment, log, node.sockets)
            except OSError as error:
                self._set(node, "failed")
                raise NodeFailed(workload.name, f"cannot be executed: {error}") from error
        self._note()
        return node.process

    def _failure(self, node: Node, code: int, what: str) -> OutgrowError:
        tail = self._tail(node)
        error = told(tail[-1]) if code == EXIT_TOLD and tail else None
        if error is not None:
            return error
        return NodeFailed(node.workload.name, f"{what} ({describe(code)})", log_tail=tail)

    def _tail(self, node: Node) -> list[str]:
        return self._logs.tail(node.workload.name, TAIL_LINES, since=node.log_start)

    def _set(self, node: Node, state: State, text: str = "") -> None:
        node.state, node.text = state, text
        node.since = time.time()
        self._tell(Change(node.workload.name, state, text))

    def _note(self) -> None:
        self._noted(
            {
                name: orphans.note(node.pid, node.workload.stop.signal)
                for name, node in self.nodes.items()
                if node.pid is not None
            }
        )

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_EVERY_S)
            with contextlib.suppress(OSError):
                self._logs.rotate()


def describe(code: int) -> str:
    """An exit code in words."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def in_order(workloads: Sequence[Workload]) -> list[Workload]:
    """Each after what it names, else as given. Raises FleetError for a circle or an unknown name."""
    known = {workload.name: workload for workload in workloads}
    ordered: dict[str, Workload] = {}

    def place(workload: Workload, waiting: tuple[str, ...]) -> None:
        if workload.name in ordered:
            return
        if workload.name in waiting:
            raise FleetError(f"workloads wait for each other: {' -> '.join((*waiting, workload.name))}")
        for name in workload.after:
            if name not in known:
                raise FleetError(f"workload {workload.name} waits for {name}, which does not exist")
            place(known[name], (*waiting, workload.name))
        ordered[workload.name] = workload

    for workload in workloads:
        place(workload, ())
    return list(ordered.values())

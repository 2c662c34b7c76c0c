"""One workload and its life: it starts, is watched, comes again when it dies, and ends.

job:      spawn ─► runs to its end
service:  spawn ─► ready ─► watched: it ends ─► back-off ─► spawn ─► ready … until it has died too often
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Set
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from outgrow.errors import EXIT_TOLD, FleetError, NodeFailed, OutgrowError, told
from outgrow.supervisor import ports, process
from outgrow.supervisor.backoff import Backoff
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.probe import until_ready
from outgrow.workload import Workload

TAIL_LINES, TOLD_LINES, READ_LINES = 12, 200, 10_000
ACCESS_LINE = frozenset({"method", "path", "status"})
"""What each line of an access log tells (runtime/telemetry/logs.py)."""

State = Literal["waiting", "starting", "ready", "restarting", "failed", "stopping", "stopped", "done"]


class Change(NamedTuple):
    """A node has changed its state."""

    node: str
    state: State
    text: str = ""


class Whole(Protocol):
    """What a node is a part of, and tells of itself."""

    logs: Logs
    mark: dict[str, str]
    stopping: bool

    def changed(self, node: Node) -> None: ...
    def spawned(self, node: Node) -> None: ...
    def ended(self) -> None: ...
    def can_do_without(self, node: Node) -> bool: ...


class Node:
    """One workload and what has become of it. `since` is Unix time.

    `opened` and `spawned` tell on a monotonic clock when its sockets and its process are from.
    """

    def __init__(self, workload: Workload, whole: Whole) -> None:
        self.workload = workload
        self.state: State = "waiting"
        self.text = ""
        self.since = time.time()
        self.restarts = 0
        self.process: process.Process | None = None
        self.sockets: list[socket.socket] = []
        self.claims: list[socket.socket] = []
        self.opened = self.spawned = 0.0
        self._whole = whole
        self._watching: asyncio.Task[None] | None = None
        self._silenced = False
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The pid, while it runs."""
        return self.process.pid if self.process is not None and self.process.running else None

    def close_sockets(self) -> None:
        """From now on connections are refused, once the child has closed its copies too."""
        for sockets in (self.sockets, self.claims):
            while sockets:
                sockets.pop().close()

    async def start(self) -> None:
        """Run the job to its end, or bring the service up and watch it.

        Raises NodeFailed, FleetError or what it has told of itself (ApplicationBroken).
        """
        try:
            if self.workload.kind == "job":
                await self._run_job()
            else:
                await self._bring_up()
                self._watching = asyncio.create_task(self._watch())
        except OutgrowError:
            self._set("failed")
            raise

    async def end(self) -> None:
        """It is not started again, and ends. Its sockets are closed first, so that nobody new comes."""
        await self.unwatch()
        self.close_sockets()
        await self.end_process()
        if self.state not in ("waiting", "done", "failed"):
            self._set("stopped")

    async def unwatch(self) -> None:
        """From now on nobody starts it again when it ends."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def end_process(self) -> None:
        """Its process ends, and its sockets stay."""
        if self.process is not None and self.process.running:
            self._set("stopping")
            await self._stop(self.process)

    async def _stop(self, child: process.Process) -> None:
        await child.stop(self.workload.stop.signal, self.workload.stop.grace_s)
        self._whole.ended()

    async def _run_job(self) -> None:
        self._set("starting")
        code = await self._spawn().wait()
        self._whole.ended()
        if code != 0:
            raise self._failure(code, "failed")
        self._set("done")

    async def _bring_up(self) -> None:
        """Spawn and wait until it is ready. Raises NodeFailed or what it told, when it is not to be."""
        self._set("starting")
        child = self._spawn()
        try:
            code = await self._until_ready_or_ended(child)
        except OSError as error:
            await self._stop(child)
            raise self._not_ready(error) from error
        if code is not None:
            self._whole.ended()
            raise self._failure(code, "ended while it started")
        self._set("ready")

    async def _until_ready_or_ended(self, child: process.Process) -> int | None:
        """None when it is ready, else its exit code. Raises what until_ready raises."""
        probe = self.workload.readiness
        if probe is None:
            return None
        ended = asyncio.ensure_future(child.wait())
        ready = asyncio.ensure_future(until_ready(probe, self._environment()))
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

    async def _watch(self) -> None:
        """Bring the service up again whenever it ends, until it has ended too often."""
        backoff = Backoff(self.workload.restart)
        reason = await self._end_of()
        while (delay_s := backoff.after_death(time.monotonic())) is not None:
            self.restarts += 1
            self._set("restarting", f"{reason}; again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)
            try:
                await self._bring_up()
                self._listens()
                backoff.ready()
                reason = await self._end_of()
            except OutgrowError as error:
                reason = error.message.splitlines()[0]
                self._refuse()
        # Nobody will answer: better refused than left to wait in the backlog.
        self.close_sockets()
        self._set("failed", f"{reason}; {backoff.verdict()}")

    async def _end_of(self) -> str:
        """Wait until it has ended; returns how."""
        assert self.process is not None
        code = await self.process.wait()
        self._refuse()
        self._whole.ended()
        return describe(code)

    def _refuse(self) -> None:
        """Where another serves instead, nobody is to wait for this one."""
        if self._whole.can_do_without(self):
            for each in self.sockets:
                ports.silence(each)
            self._silenced = True

    def _listens(self) -> None:
        """The child listens, also on sockets that were silenced: they stand behind others that share them."""
        if self._silenced:
            self.opened, self._silenced = time.monotonic(), False

    def _spawn(self) -> process.Process:
        workload = self.workload
        if self._whole.stopping:
            raise FleetError(f"node {workload.name} is not started: its fleet is being stopped")
        try:
            process.write_files(workload.files)
            self._log_start = self._whole.logs.size(workload.name)
            with self._whole.logs.open(workload.name) as log:
                self.process = process.start(
                    [*(process.unprivileged() if workload.unprivileged else ()), *workload.argv],
                    self._environment(),
                    output=log,
                    directory=workload.directory,
                    sockets=self.sockets,
                )
        except OSError as error:
            raise NodeFailed(workload.name, f"cannot be started: {error}") from error
        self.spawned = time.monotonic()
        self._whole.spawned(self)
        return self.process

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.workload.environment, **self._whole.mark}

    def _failure(self, code: int, what: str) -> OutgrowError:
        tail = self._tail()
        if code == EXIT_TOLD:
            # Its predecessor may be writing into the same log.
            for line in reversed(self._tail(TOLD_LINES)):
                if (error := told(line)) is not None:
                    return error
        return NodeFailed(self.workload.name, f"{what} ({describe(code)})", log_tail=tail)

    def _not_ready(self, error: OSError) -> NodeFailed:
        probe = self.workload.readiness
        assert probe is not None
        if isinstance(error, TimeoutError):
            text = f"was not ready within {probe.timeout_s:g} s"
        else:
            text = f"cannot be asked whether it is ready: {error}"
        return NodeFailed(self.workload.name, text, log_tail=self._tail())

    def _tail(self, lines: int = TAIL_LINES) -> list[str]:
        """What it said last. A process that is being replaced writes to the same log: the requests that it
        answers meanwhile say nothing of why another has failed."""
        said = self._whole.logs.tail(self.workload.name, READ_LINES, since=self._log_start)
        return [line for line in said if not _keys(line) >= ACCESS_LINE][-lines:]

    def _set(self, state: State, text: str = "") -> None:
        self.state, self.text = state, text
        self.since = time.time()
        self._whole.changed(self)


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

"""A fleet in a process of its own, which outlives the command that started it.

parent                                            child: python -m outgrow.cluster
  topology and directory  ── standard input ──►     runs the Fleet
  shows them              ◄── standard output ──    a JSON line for each change, then ready or error
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec

from outgrow import errors
from outgrow.cluster.control import Tell
from outgrow.cluster.fleet import Fleet
from outgrow.cluster.state import State
from outgrow.cluster.status import Status
from outgrow.errors import FleetError, OutgrowError
from outgrow.supervisor.node import Change
from outgrow.topology import Topology

STOP_WITHIN_S = 60.0


class Order(msgspec.Struct):
    """What the child is to run. It travels through a pipe: a topology may hold secrets."""

    topology: Topology
    directory: str


class Report(msgspec.Struct, omit_defaults=True):
    """One line of the child."""

    pid: int | None = None
    change: Change | None = None
    ready: Status | None = None
    error: str | None = None


async def start_detached(topology: Topology, directory: Path, *, tell: Tell) -> Status:
    """Start a fleet that goes on by itself; returns when it is ready.

    Raises what Fleet.run raises. When cancelled, it ends what it has started.
    """
    state = State(directory)
    state.create()
    with (state.logs / "supervisor.log").open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "outgrow.cluster",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    supervisor = _Supervisor(child, state, tell)
    try:
        return await supervisor.ready(Order(topology, str(state.application)))
    except asyncio.CancelledError:
        await supervisor.end()
        raise


class _Supervisor:
    """The supervisor as seen by the one who starts it. The child forks once more and ends, so it is
    nobody's child when the command has ended."""

    def __init__(self, child: asyncio.subprocess.Process, state: State, tell: Tell) -> None:
        assert child.stdin is not None and child.stdout is not None
        self._child, self._stdin, self._stdout = child, child.stdin, child.stdout
        self._state = state
        self._tell = tell
        self._pid: int | None = None

    async def ready(self, order: Order) -> Status:
        self._stdin.write(msgspec.json.encode(order))
        self._stdin.close()
        ready: Status | None = None
        failure: str | None = None
        while line := await self._stdout.readline():  # it closes its side after the last word
            report = msgspec.json.decode(line, type=Report)
            self._pid = report.pid or self._pid
            ready, failure = report.ready or ready, report.error or failure
            if report.change is not None:
                self._tell(report.change)
        await self._child.wait()
        if ready is not None:
            return ready
        await self._ended()
        if failure is not None:
            raise errors.told(failure) or FleetError(failure)
        raise FleetError(
            "the supervisor ended before the fleet was ready",
            hint=f"its log says why: {self._state.logs / 'supervisor.log'}",
        )

    async def end(self) -> None:
        if self._pid is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
        await self._child.wait()
        await self._ended()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._stdout.read()  # asyncio lets go of a child at the end of its output

    async def _ended(self) -> None:
        """Wait until it has let go of the lock, which is the last thing that it does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S):
                while self._pid is not None and self._state.holder() == self._pid:
                    await asyncio.sleep(0.02)


async def _run(order: Order) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    starter = _Starter()
    starter.say(Report(pid=os.getpid()))
    try:
        await Fleet(order.topology, Path(order.directory)).run(
            tell=lambda change: starter.say(Report(change=change)),
            ready=lambda status: starter.say(Report(ready=status), last=True),
            stop=stop,
        )
    except OutgrowError as error:
        starter.say(Report(error=errors.tell(error)), last=True)
        return error.exit_code
    return 0


class _Starter:
    """Whoever waits for the start, as seen by the supervisor; gone once it is told of the end of it."""

    def __init__(self) -> None:
        self._descriptor: int | None = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)

    def say(self, report: Report, *, last: bool = False) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._descriptor, msgspec.json.encode(report) + b"\n")
        if last:
            os.close(self._descriptor)
            self._descriptor = None


def main() -> int:
    """Read the order, and run the fleet in a process that nobody waits for until it is told to stop."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    if os.fork():
        return 0
    return asyncio.run(_run(order))

"""The control socket of a running fleet: one JSON line asks, JSON lines answer, the end closes.

{"command": "status"}                     ->  {"status": {...}}; "measured": false spares a look at /proc
{"command": "down"}                       ->  {"change": {...}} ... until everything has ended
{"command": "start", "workloads": [...]}  ->  {"change": {...}} ... {"done": true}; what runs is left alone
{"command": "remove", "names": [...]}     ->  likewise
{"command": "adopt", "topology": {...}}   ->  {"done": true}: the fleet is this topology from now on
{"command": "become", "topology": {...}}  ->  {"change": {...}} ... {"done": true}: see front.py
{"command": "sessions", "sessions": {...}}  ->  {"done": true}: published that they are there from now on
{"command": "cache", "cache": {...}}  ->  likewise: that the cache is there
{"command": "count", "servers": 3}        ->  likewise: so many application servers, for the autoscaler
{"command": "deploy", "topology": {...}, "release": 7}  ->  likewise: see rollout.py
{"command": "hand-over", "names": ["postgres-1"]}  ->  likewise: that one is about not to be the primary
{"command": "topology"}                   ->  {"topology": {...}}: what runs, without its secrets

All but the first two, and the last, are how a growing application changes its running fleet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from outgrow.cluster.state import State
from outgrow.cluster.status import Status
from outgrow.endpoints import Cache, Sessions
from outgrow.errors import FleetBusy, FleetError, FleetNotRunning, OutgrowError, StateUnreadable, tell, told
from outgrow.supervisor import orphans
from outgrow.supervisor.limits import Limits
from outgrow.supervisor.node import Change
from outgrow.topology import Topology
from outgrow.workload import Workload

ANSWER_WITHIN_S = 10.0
STOP_WITHIN_S = 120.0
LINE_MAX = 1 << 20

Tell = Callable[[Change], None]


class Request(msgspec.Struct, omit_defaults=True):
    """What is asked."""

    command: Literal[
        "status",
        "down",
        "start",
        "remove",
        "adopt",
        "become",
        "sessions",
        "cache",
        "count",
        "deploy",
        "hand-over",
        "topology",
    ]
    measured: bool = True
    workloads: tuple[Workload, ...] = ()
    names: tuple[str, ...] = ()
    topology: Topology | None = None
    sessions: Sessions | None = None
    cache: Cache | None = None
    servers: int = 0
    release: int = 0


class Answer(msgspec.Struct, omit_defaults=True):
    """One line of the answer. `error` is what errors.tell writes."""

    status: Status | None = None
    topology: Topology | None = None
    change: Change | None = None
    done: bool = False
    error: str | None = None


class Controlled(Protocol):
    """What a fleet lets others do to it."""

    def status(self, *, measured: bool = True) -> Status: ...
    def request_stop(self) -> None: ...
    async def start(self, workloads: Sequence[Workload]) -> None: ...
    async def remove(self, names: Collection[str]) -> None: ...
    async def adopt(self, topology: Topology) -> None: ...
    def keep_sessions(self, sessions: Sessions) -> None: ...
    def keep_cache(self, cache: Cache) -> None: ...
    async def become(self, topology: Topology) -> None: ...
    async def count(self, servers: int) -> None: ...
    async def deploy(self, topology: Topology, release: int) -> None: ...
    def hand_over(self, names: Collection[str]) -> None: ...
    @property
    def topology(self) -> Topology: ...


class Control:
    """The socket's server side."""

    def __init__(self, path: Path, fleet: Controlled) -> None:
        self._path = path
        self._fleet = fleet
        self._watching: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Listen, readable and writable by this user alone."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)  # the socket must not be open to others even for a moment
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LINE_MAX)
        finally:
            os.umask(before)

    def tell(self, change: Change) -> None:
        """Pass a change on to everybody who waits for the end of something."""
        for writer in self._watching:
            _write(writer, Answer(change=change))

    async def close(self) -> None:
        """Everything has ended: so do the answers."""
        if self._server is not None:
            self._server.close()
        for writer in self._watching:
            writer.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                request = msgspec.json.decode(await reader.readline(), type=Request)
        except (msgspec.DecodeError, TimeoutError, ValueError) as error:
            _write(writer, Answer(error=tell(FleetError(f"not a request: {error}"))))
            writer.close()
            return
        except OSError:
            writer.close()
            return
        if request.command == "down":
            self._watching.add(writer)
            self._fleet.request_stop()
            return  # the end of the fleet closes it
        try:
            _write(writer, await self._do(request, writer))
            await writer.drain()
        except OSError:
            pass  # whoever asked is gone
        finally:
            self._watching.discard(writer)
            writer.close()

    async def _do(self, request: Request, writer: asyncio.StreamWriter) -> Answer:
        if request.command == "status":
            return Answer(status=await asyncio.to_thread(self._fleet.status, measured=request.measured))
        if request.command == "topology":
            return Answer(topology=bare(self._fleet.topology))
        self._watching.add(writer)
        try:
            async with self._changing:
                await self._change(request)
        except OutgrowError as error:
            return Answer(error=tell(error))
        return Answer(done=True)

    async def _change(self, request: Request) -> None:
        fleet, topology = self._fleet, request.topology
        match request.command:
            case "start":
                await fleet.start(request.workloads)
            case "remove":
                await fleet.remove(request.names)
            case "count":
                await fleet.count(request.servers)
            case "hand-over":
                fleet.hand_over(request.names)
            case "sessions" if request.sessions is not None:
                fleet.keep_sessions(request.sessions)
            case "cache" if request.cache is not None:
                fleet.keep_cache(request.cache)
            case "become" if topology is not None:
                await fleet.become(topology)
            case "deploy" if topology is not None:
                await fleet.deploy(topology, request.release)
            case "adopt" if topology is not None:
                await fleet.adopt(topology)


def bare(topology: Topology) -> Topology:
    """Without what is nobody else's business."""
    replace = msgspec.structs.replace
    return replace(topology, application=replace(topology.application, secret=None, environment={}))


def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(msgspec.json.encode(answer) + b"\n")


async def status(directory: Path, *, measured: bool = True) -> Status:
    """What runs in this directory. Raises FleetNotRunning, or FleetError when the fleet does not answer.

    `measured`: with each node's CPU and memory, of which the CPU is since the last time somebody asked.
    """
    state = State(directory)
    _require_running(state)
    async with asyncio.timeout(ANSWER_WITHIN_S):
        async for answer in _ask(state, Request("status", measured=measured)):
            if answer.status is not None:
                return answer.status
    raise FleetError(
        f"the fleet of {state.application} does not answer", hint="`outgrow down`, then `outgrow up`"
    )


async def topology(directory: Path) -> Topology:
    """What this directory's fleet is now, without its secrets. Raises FleetNotRunning or FleetError."""
    state = State(directory)
    _require_running(state)
    async with asyncio.timeout(ANSWER_WITHIN_S):
        async for answer in _ask(state, Request("topology")):
            if answer.topology is not None:
                return answer.topology
    raise FleetError(f"the fleet of {state.application} does not answer", hint="`outgrow down`, then `up`")


async def down(directory: Path, *, tell: Tell) -> bool:
    """End the fleet of this directory, or what a crash has left of it. Returns whether there was any.

    Raises FleetError when its supervisor neither answers nor ends.
    """
    state = State(directory)
    if state.holder() is None:
        return await asyncio.to_thread(_end_orphans, state)
    with contextlib.suppress(FleetError):
        async for answer in _ask(state, Request("down")):
            if answer.change is not None:
                tell(answer.change)
    await _until_released(state)
    return True


def _end_orphans(state: State) -> bool:
    if not state.folder.is_dir():
        return False
    try:
        with state.locked():
            try:
                left = state.orphans()
            except StateUnreadable:
                left = state.marked()
                state.reset()
            ended = orphans.end(left)
            Limits(state.fleet).remove()
            state.ended()
            return ended > 0
    except FleetBusy:  # somebody was faster
        return True


async def _until_released(state: State) -> None:
    deadline = asyncio.get_running_loop().time() + STOP_WITHIN_S
    while (pid := state.holder()) is not None:
        if asyncio.get_running_loop().time() > deadline:
            raise FleetError(
                f"the supervisor {pid} of {state.application} does not end",
                hint=f"kill -9 {pid}, then `outgrow down` again",
            )
        await asyncio.sleep(0.02)


async def change(directory: Path, request: Request, *, tell: Tell) -> None:
    """Change the running fleet. Raises FleetNotRunning, and what the fleet raises."""
    state = State(directory)
    _require_running(state)
    async for answer in _ask(state, request):
        if answer.change is not None:
            tell(answer.change)
        elif answer.error is not None:
            raise told(answer.error) or FleetError(answer.error)
        elif answer.done:
            return
    raise FleetError(f"the fleet of {state.application} ended meanwhile", hint="start it with `outgrow up`")


async def _ask(state: State, request: Request) -> AsyncIterator[Answer]:
    try:
        reader, writer = await asyncio.open_unix_connection(state.control, limit=LINE_MAX)
    except OSError as error:
        _require_running(state)
        raise FleetError(
            f"the fleet of {state.application} does not answer at {state.control}: {error}",
            hint="it may be starting or stopping: try again; else `kill` its supervisor",
        ) from None
    try:
        writer.write(msgspec.json.encode(request) + b"\n")
        await writer.drain()
        while line := await reader.readline():
            yield msgspec.json.decode(line, type=Answer)
    except OSError:
        return
    finally:
        writer.close()


def _require_running(state: State) -> None:
    if state.holder() is None:
        raise FleetNotRunning(str(state.application))

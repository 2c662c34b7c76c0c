"""The control socket of a running fleet: one JSON line asks, JSON lines answer, the end closes.

{"command": "status"}  ->  {"status": {...}}     with "measured": false nobody's CPU and memory is looked at
{"command": "down"}    ->  {"change": {...}} ... until everything has ended
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import msgspec

from outgrow.cluster.state import State
from outgrow.cluster.status import Status
from outgrow.errors import FleetBusy, FleetError, FleetNotRunning, StateUnreadable
from outgrow.supervisor import orphans
from outgrow.supervisor.supervisor import Change

ANSWER_WITHIN_S = 10.0
STOP_WITHIN_S = 120.0

Tell = Callable[[Change], None]


class Request(msgspec.Struct):
    """What is asked."""

    command: Literal["status", "down"]
    measured: bool = True


class Answer(msgspec.Struct, omit_defaults=True):
    """One line of the answer."""

    status: Status | None = None
    change: Change | None = None
    error: str | None = None


class Control:
    """The socket's server side. `status` is asked for each time; `stop` is called by `down`."""

    def __init__(self, path: Path, status: Callable[[bool], Status], stop: Callable[[], None]) -> None:
        self._path = path
        self._status = status
        self._stop = stop
        self._watching: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, readable and writable by this user alone."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)  # the socket must not be open to others even for a moment
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
        finally:
            os.umask(before)

    def tell(self, change: Change) -> None:
        """Pass a change on to everybody who waits for the end."""
        line = msgspec.json.encode(Answer(change=change)) + b"\n"
        for writer in self._watching:
            writer.write(line)

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
            if request.command == "down":
                self._watching.add(writer)
                self._stop()
                return
            answer = Answer(status=await asyncio.to_thread(self._status, request.measured))
        except (msgspec.DecodeError, TimeoutError, ValueError) as error:
            answer = Answer(error=f"not a request: {error}")
        except (OSError, asyncio.CancelledError):
            writer.close()
            return
        with contextlib.suppress(OSError):
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
        writer.close()


async def status(directory: Path, *, measured: bool = True) -> Status:
    """What runs in this directory. Raises FleetNotRunning, or FleetError when the fleet does not answer.

    `measured`: with each node's CPU and memory, of which the CPU is since the last time somebody asked.
    """
    state = State(directory)
    _require_running(state)
    async with asyncio.timeout(ANSWER_WITHIN_S):
        async for answer in _ask(state, Request("status", measured)):
            if answer.status is not None:
                return answer.status
    raise FleetError(
        f"the fleet of {state.application} does not answer", hint="`outgrow down`, then `outgrow up`"
    )


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


async def _ask(state: State, request: Request) -> AsyncIterator[Answer]:
    try:
        reader, writer = await asyncio.open_unix_connection(state.control)
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

"""The fleet's hand inside an application process: a Unix socket, JSON lines in and out.

    {"command": "state"}                  ->  {"epoch": 3, "held": false, "writing": 2}: write blocks open
    {"command": "warm", "engine": "postgres"}  ->  the driver of that engine is loaded: it takes a moment
    {"command": "hold", "seconds": 5}     ->  held: write blocks wait, those under way have ended
    {"command": "reload"}                 ->  the endpoints document is read again and obeyed
    {"command": "release"}                ->  write blocks go on
    {"command": "release", "node": "postgres-1", "timeline": 2, "lsn": 83886080}  ->  likewise: all that this
                                              primary has shown is at that position of the next one
    {"command": "carry", "seconds": 0.2}  ->  {"carried": 90, "left": true}: sessions, from where they were
    {"command": "clear", "seconds": 0.2}  ->  likewise: what lay where they are to be, from an earlier time
    {"command": "flush", "tags": ["a"]}   ->  the cache forgets what has these tags or keys; without any, all
    {"command": "drain"}                  ->  its connections end (drain.py); the answer counts them
    {"command": "renew"}                  ->  the connections of this moment end with their next answer

A hold belongs to the connection that asked for it. When that connection breaks (its owner was killed)
or the time is up, the process looks at the document itself, takes what it says, and goes on: the
document is the one truth, and whoever replaces it does so while the hold is surely in force.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from outgrow.errors import OutgrowError
from outgrow.runtime.database.gate import Gate
from outgrow.runtime.drain import PROCESS

DRAIN_WITHIN_S = 2.0
RETRY_S = 0.2

logger = logging.getLogger("outgrow.control")


class Request(msgspec.Struct):
    """What is asked."""

    command: Literal[
        "state", "warm", "hold", "reload", "release", "carry", "clear", "flush", "drain", "renew"
    ]
    seconds: float = 5.0
    tags: tuple[str, ...] = ()
    engine: Literal["sqlite", "postgres"] = "sqlite"
    node: str = ""
    timeline: int = 0
    lsn: int = 0


class Answer(msgspec.Struct, omit_defaults=True):
    """How it stands after that; `error` when it could not be done."""

    epoch: int
    held: bool = False
    connections: int = 0
    writing: int = 0
    carried: int = 0
    left: bool = False
    error: str | None = None


def _bound(path: Path) -> socket.socket:
    """Through the open folder: a socket's path holds 108 bytes at most, however long the folder's is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    before = os.umask(0o177)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
        os.close(folder)
    return listener


class Control:
    """Listens in `folder`. `reload` reads the document again and obeys it; it raises OutgrowError.

    `drain` is called when the process is about to go; `carry` for so many seconds, and to `clear` or not;
    `flush` with what the cache is to forget; `handed_over` with a primary that was stopped as planned, and a
    position of the next one.
    """

    def __init__(
        self,
        folder: Path,
        gate: Gate,
        *,
        epoch: Callable[[], int],
        reload: Callable[[], Awaitable[None]],
        drain: Callable[[], None] = PROCESS.begin,
        carry: Callable[[float, bool], Awaitable[tuple[int, bool]]] | None = None,
        flush: Callable[[Sequence[str]], Awaitable[None]] | None = None,
        handed_over: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._path = folder / f"{os.getpid()}.sock"
        self._gate = gate
        self._epoch = epoch
        self._reload = reload
        self._drain = drain
        self._carry = carry
        self._flush = flush
        self._handed_over = handed_over
        self._holder: asyncio.StreamWriter | None = None
        self._expiry: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Listen, for this user alone."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, sock=_bound(self._path))

    async def close(self) -> None:
        """Listen no more. Nothing stays held."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)
        self._let_go()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                answer = await self._answer(line, writer)
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # whoever asked is gone, or talks nonsense; or nobody listens any more
        finally:
            self._tasks.discard(task)
            if self._holder is writer:
                await self._look_and_go_on()
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> Answer:
        error, carried, left = None, 0, False
        try:
            request = msgspec.json.decode(line, type=Request)
            if request.command == "warm":
                await asyncio.to_thread(importlib.import_module, f"outgrow.runtime.database.{request.engine}")
            elif request.command == "hold":
                await self._hold(writer, request.seconds)
            elif request.command == "reload":
                await self._reload()
            elif request.command in ("carry", "clear") and self._carry is not None:
                carried, left = await self._carry(request.seconds, request.command == "clear")
            elif request.command == "flush" and self._flush is not None:
                await self._flush(request.tags)
            elif request.command == "drain":
                self._drain()
            elif request.command == "renew":
                PROCESS.renew()
            elif request.command == "release" and self._holder in (None, writer):
                if request.node and self._handed_over is not None:
                    self._handed_over(request.node, request.timeline, request.lsn)
                self._let_go()
        except TimeoutError:
            error = f"a write block was still open after {DRAIN_WITHIN_S:g} s"
        except (OutgrowError, msgspec.DecodeError, OSError, ImportError) as failure:
            error = str(failure)
        connections = len(PROCESS.connections)
        gate = self._gate
        return Answer(self._epoch(), gate.held, connections, gate.inside, carried, left, error)

    async def _hold(self, writer: asyncio.StreamWriter, seconds: float) -> None:
        if self._holder is not None and self._holder is not writer:
            raise BlockingIOError("somebody else holds the writes")
        self._let_go()
        self._holder = writer
        self._expiry = asyncio.create_task(self._expire(seconds))
        try:
            await self._gate.hold(DRAIN_WITHIN_S)
        except BaseException:
            self._let_go()
            raise

    async def _expire(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._expiry = None
        await self._look_and_go_on()

    async def _look_and_go_on(self) -> None:
        while True:
            try:
                await self._reload()
                break
            except (OutgrowError, OSError) as error:
                # To go on with the old database could lose what is written to it: writers wait, and fail.
                logger.warning("writes stay held: %s", error)
                await asyncio.sleep(RETRY_S)
        self._let_go()

    def _let_go(self) -> None:
        self._holder = None
        expiry, self._expiry = self._expiry, None
        if expiry is not None and expiry is not asyncio.current_task():
            expiry.cancel()
        self._gate.release()

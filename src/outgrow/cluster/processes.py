"""All processes of the application at once, through their control sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from outgrow.errors import FleetError

ANSWER_WITHIN_S = 10.0
HOLD_ANSWER_WITHIN_S = 3.0
"""More than a process waits for its write blocks (runtime/control.py); the others wait meanwhile."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
More = str | float | Sequence[str]


class Answer(msgspec.Struct):
    """How a process stands (runtime/control.py)."""

    epoch: int
    held: bool = False
    connections: int = 0
    writing: int = 0
    carried: int = 0
    left: bool = False
    error: str | None = None


class Processes:
    """Connections to every process that has the tiers open, or to those of the pids in `only`.

    What they hold ends with the connection.
    """

    def __init__(self, folder: Path, only: Collection[int] | None = None) -> None:
        self._folder = folder
        self._only = only
        self._connections: dict[Path, Connection] = {}

    async def __aenter__(self) -> Self:
        await self._join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, writer in self._connections.values():
            writer.close()

    async def ask(self, command: str, *, within_s: float = ANSWER_WITHIN_S, **more: More) -> list[Answer]:
        """Ask all of them at once. Raises FleetError when one cannot do it or does not answer."""
        return await self._ask(list(self._connections), {"command": command, **more}, within_s)

    async def ask_one(self, command: str, *, within_s: float = ANSWER_WITHIN_S, **more: More) -> list[Answer]:
        """Ask the first that answers: nothing when there is none. Raises like ask."""
        while self._connections:
            first = next(iter(self._connections))
            if answers := await self._ask([first], {"command": command, **more}, within_s):
                return answers
        return []

    async def state(self, *, within_s: float = ANSWER_WITHIN_S) -> list[Answer]:
        """How all of them stand, those that have just come too. Raises like ask."""
        await self._join()
        return await self.ask("state", within_s=within_s)

    async def hold(self, seconds: float) -> None:
        """Hold the writes of all of them, those that have just come too. Raises FleetError, holding none."""
        request: dict[str, More] = {"command": "hold", "seconds": seconds}
        wanted: Collection[Path] = list(self._connections)
        try:
            while wanted:
                await self._ask(wanted, request, HOLD_ANSWER_WITHIN_S)
                wanted = await self._join()
        except BaseException:
            with contextlib.suppress(FleetError):
                await self.ask("release", within_s=HOLD_ANSWER_WITHIN_S)
            raise

    async def _join(self) -> list[Path]:
        """Connect to those that are not known yet, and tell which they are."""
        joined = []
        for path in _sockets(self._folder):
            if self._only is not None and int(path.stem) not in self._only:
                continue
            # Refused or gone: it ends just now. What starts later reads the document itself.
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                if path not in self._connections:
                    self._connections[path] = await _connect(path)
                    joined.append(path)
        return joined

    async def _ask(
        self, paths: Collection[Path], request: Mapping[str, More], within_s: float
    ) -> list[Answer]:
        line = msgspec.json.encode(request) + b"\n"
        asked = [path for path in paths if path in self._connections]
        answers = await asyncio.gather(*(self._answer(path, line, within_s) for path in asked))
        there = [answer for answer in answers if answer is not None]
        for answer in there:
            if answer.error is not None:
                raise FleetError(f"a process of the application: {answer.error}")
        return there

    async def _answer(self, path: Path, line: bytes, within_s: float) -> Answer | None:
        """None of a process that has ended: it writes no more. A connection that failed is closed."""
        reader, writer = self._connections[path]
        wrong = None
        try:
            async with asyncio.timeout(within_s):
                writer.write(line)
                await writer.drain()
                if answer := await reader.readline():
                    return msgspec.json.decode(answer, type=Answer)
        except ConnectionError:
            pass
        except TimeoutError:
            wrong = f"did not answer within {within_s:g} s"
        except (msgspec.DecodeError, ValueError) as error:
            wrong = f"answered nonsense: {error}"
        del self._connections[path]
        writer.close()
        return None if wrong is None else Answer(0, error=f"{path.stem} {wrong}")


async def _connect(path: Path) -> Connection:
    """Through the open folder: a socket's path holds 108 bytes at most, however long the folder's is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _sockets(folder: Path) -> list[Path]:
    """Of the processes that live; those of dead ones are removed."""
    found = []
    for path in sorted(folder.glob("*.sock")):
        if Path(f"/proc/{path.stem}").exists():
            found.append(path)
        else:
            path.unlink(missing_ok=True)
    return found

"""All processes of the application at once, through their control sockets."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from outgrow.errors import FleetError

ANSWER_WITHIN_S = 10.0


class Answer(msgspec.Struct):
    """How a process stands (runtime/control.py)."""

    epoch: int
    held: bool = False
    error: str | None = None


class Processes:
    """Connections to every process that has the tiers open. What they hold ends with the connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> Self:
        for path in _sockets(self._folder):
            # Refused or gone: it ends just now. What starts later reads the document itself.
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                self._connections.append(await asyncio.open_unix_connection(path))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, writer in self._connections:
            writer.close()

    async def ask(self, command: str, *, seconds: float = 0.0) -> list[Answer]:
        """Ask all of them at once. Raises FleetError when one cannot do it or does not answer."""
        line = msgspec.json.encode({"command": command, "seconds": seconds}) + b"\n"
        answers = await asyncio.gather(*(_ask(*each, line) for each in self._connections))
        for answer in answers:
            if answer.error is not None:
                raise FleetError(f"a process of the application: {answer.error}")
        return answers


def _sockets(folder: Path) -> list[Path]:
    """Of the processes that live; those of dead ones are removed."""
    found = []
    for path in sorted(folder.glob("*.sock")):
        if Path(f"/proc/{path.stem}").exists():
            found.append(path)
        else:
            path.unlink(missing_ok=True)
    return found


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> Answer:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            writer.write(line)
            await writer.drain()
            answer = await reader.readline()
            return msgspec.json.decode(answer, type=Answer)
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        raise FleetError(f"a process of the application does not answer: {error or 'time-out'}") from error

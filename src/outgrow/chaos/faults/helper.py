"""A fault that needs a process of its own, so that it is no load on the one that measures.

    helper: ready ◄─► go: drill       then it works until its standard input ends

So it cannot outlive whoever has started it, kill -9 included; it undoes what it does before it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Sequence

from outgrow.errors import OutgrowError
from outgrow.supervisor.orphans import Note

ANSWERS_WITHIN_S = 15.0
ENDS_WITHIN_S = 5.0


class Helper:
    """`python -m module arguments`, which calls `wait` and `begun` and asks `goes_on`."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._argv = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process | None = None

    async def prepare(self) -> None:
        """Start it; it does nothing yet. Raises OutgrowError when it cannot do its work."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=pipe, stdout=pipe, start_new_session=True
        )
        await self._hear()

    async def start(self) -> None:
        """It works when this returns. Raises OutgrowError when it cannot."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(b"\n")
            await self._hear()

    async def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(ENDS_WITHIN_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _hear(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                said = await self._process.stdout.readline()
        if said.strip() != b"ok":
            await self.stop()
            why = said.decode(errors="replace").strip() or "it ended"
            raise OutgrowError(f"the fault cannot be injected: {why}", hint="`outgrow drill list` has others")


class Helped:
    """A fault (fault.py) that such a helper makes, until it is undone."""

    lasts = True
    stops: Sequence[Note] = ()

    def __init__(self, says: str, module: str, arguments: Sequence[str]) -> None:
        self.says = says
        self._helper = Helper(module, arguments)

    async def prepare(self) -> None:
        """Raises OutgrowError where it cannot be done, or this user may not."""
        await self._helper.prepare()

    async def inject(self) -> None:
        """The fault is there when this returns."""
        await self._helper.start()

    async def undo(self) -> None:
        """Everything is as it was."""
        await self._helper.stop()


def wait() -> None:
    """For a helper: everything is ready; return when it is to begin, or end when nobody is there any more."""
    _say("ok")
    if not os.read(sys.stdin.fileno(), 1):
        sys.exit(0)


def begun() -> None:
    """For a helper: the fault is there now."""
    _say("ok")


def refuse(why: str) -> int:
    """For a helper: it cannot be done here."""
    _say(why)
    return 1


def goes_on() -> bool:
    """For a helper: whether whoever has started it still holds its standard input."""
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return not readable or bool(os.read(sys.stdin.fileno(), 1))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()

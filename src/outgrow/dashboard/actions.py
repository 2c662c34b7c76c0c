"""What the page can have done: commands of ours, run as a person would, one at a time.

So an action takes the lock, leaves the line in the audit, and checks what the command does. What it says is
in .outgrow/logs/actions.log. When the dashboard ends, the command is told to end, as by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from outgrow.chaos import drills
from outgrow.dashboard.snapshot import Action
from outgrow.errors import Misuse

LOG = "actions.log"
END_WITHIN_S = 2.0
TAIL_BYTES = 16384
LOG_BYTES_MAX = 1024 * 1024
WORDS_MAX = 300
MISUSED = 2
"""The exit code of a command that was called wrongly: it has done nothing."""


ELSEWHERE = {"kill-supervisor"}
"""Drills that would end the dashboard, and themselves with it: the command runs them."""


class Scale(msgspec.Struct, forbid_unknown_fields=True):
    """What /api/scale is sent."""

    servers: int


class Drill(msgspec.Struct, forbid_unknown_fields=True):
    """What /api/drill is sent."""

    name: str


def possible_drills() -> list[dict[str, str]]:
    """Those that may be started from here: name, what it does, what it needs."""
    found = [drills.find(name) for name in drills.TABLE if name not in ELSEWHERE]
    return [{"name": each.name, "does": each.does, "needs": each.needs} for each in found]


class Actions:
    """The last action of one fleet's dashboard. `tell` makes an event of what leaves no line in the audit."""

    def __init__(self, directory: Path, logs: Path, tell: Callable[[str, str], None]) -> None:
        self._directory = directory
        self._log = logs / LOG
        self._tell = tell
        self._began_at = 0
        self._last: Action | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def now(self) -> Action | None:
        """The last one, with what it said last."""
        if self._last is None or self._last.outcome != "running":
            return self._last
        return msgspec.structs.replace(self._last, line=self._said())

    def scale(self, wanted: Scale) -> None:
        """So many application servers. Raises Misuse while something else is done."""
        self._start(
            f"Scaling to {wanted.servers} servers",
            ("scale", f"app={wanted.servers}", "-C", str(self._directory), "--json"),
        )

    def drill(self, wanted: Drill) -> None:
        """One drill, to its verdict. Raises Misuse where there is none, or while something else is done."""
        drill = drills.find(wanted.name)
        if drill.name in ELSEWHERE:
            raise Misuse(f"{drill.name} would end this dashboard", hint=f"`outgrow drill {drill.name}`")
        self._start(f"Drill {drill.name}", ("drill", drill.name, str(self._directory), "--yes"))
        self._tell("drill", f"{drill.name} has begun: {drill.does}")

    async def close(self) -> None:
        """End what is under way."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    def _start(self, says: str, arguments: Sequence[str]) -> None:
        if self._running is not None and not self._running.done():
            raise Misuse("something else is being done: wait for it")
        self._began_at = self._begin_log()
        self._last = Action(says=says, began=time.time(), ended=None, outcome="running", line="")
        self._running = asyncio.create_task(self._run(arguments))

    def _begin_log(self) -> int:
        """Where the next command's lines begin. A long log is emptied."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES_MAX:
                self._log.write_bytes(b"")
            return self._log.stat().st_size
        return 0

    async def _run(self, arguments: Sequence[str]) -> None:
        code = MISUSED
        try:
            code = await self._command(arguments)
        except OSError as error:
            self._ended("failed", f"it cannot be started: {error.strerror}")
        else:
            self._ended("done" if code == 0 else "failed", self._said())
        if code == MISUSED:
            self._tell_of_drill()

    async def _command(self, arguments: Sequence[str]) -> int:
        with self._log.open("ab") as log:
            command = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "outgrow.cli",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        try:
            return await command.wait()
        finally:
            if command.returncode is None:
                await _end(command)

    def _ended(self, outcome: Literal["done", "failed"], line: str) -> None:
        assert self._last is not None
        self._last = msgspec.structs.replace(self._last, ended=time.time(), outcome=outcome, line=line)

    def _tell_of_drill(self) -> None:
        """Of one that did nothing, and so left no line in the audit."""
        if self._last is not None and self._last.says.startswith("Drill"):
            self._tell("drill", f"{self._last.says.removeprefix('Drill ')}: {self._last.line}")

    def _said(self) -> str:
        """The last line that it has written, in words."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(self._began_at, size - TAIL_BYTES))
            lines = [line for line in log.read().split(b"\n")[:-1] if line.strip()]
            hint = len(lines) > 1 and lines[-1].strip().startswith("→".encode())
            return words(lines[-2] + lines[-1] if hint else lines[-1]) if lines else ""
        return ""


async def _end(command: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        command.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(command.wait(), END_WITHIN_S)


def words(line: bytes) -> str:
    """A line of a command's --json, as people read it."""
    try:
        told = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line.decode(errors="replace")[:WORDS_MAX]
    return _words(told)[:WORDS_MAX]


def _words(told: dict[str, Any]) -> str:
    if isinstance(error := told.get("error"), dict):
        return ". ".join(str(error[key]) for key in ("message", "hint") if error.get(key))
    if told.get("event") == "change":
        return f"{told['node']}: {told.get('text') or told['state']}"
    if told.get("event") == "ended":
        added, gone = told.get("added", ()), told.get("gone", ())
        return "   ".join([*(f"+ {name}" for name in added), *(f"- {name}" for name in gone)])
    return ""

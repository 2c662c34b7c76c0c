"""A process hangs without dying: it keeps its connections, and answers nothing (SIGSTOP)."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from outgrow.chaos.faults.fault import send
from outgrow.supervisor.orphans import Note


class Pause:
    """Of these processes, until it is undone (SIGCONT)."""

    lasts = True

    def __init__(self, name: str, processes: Sequence[Note]) -> None:
        self.says = f"SIGSTOP of {name}: it hangs"
        self.stops = processes

    async def prepare(self) -> None:
        """There is nothing to prepare."""

    async def inject(self) -> None:
        """All of them, at once."""
        for each in self.stops:
            send(each, signal.SIGSTOP)

    async def undo(self) -> None:
        """They go on where they were."""
        for each in self.stops:
            send(each, signal.SIGCONT)

"""A process ends: at once (SIGKILL, as the out-of-memory killer does), or asked to (SIGTERM)."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from outgrow.chaos.faults.fault import send
from outgrow.supervisor.orphans import Note


class Kill:
    """Of these processes. Nothing is to be undone: whoever supervises them starts them again."""

    lasts = False
    stops: Sequence[Note] = ()

    def __init__(self, name: str, processes: Sequence[Note], number: signal.Signals = signal.SIGKILL) -> None:
        self.says = f"{number.name} of {name}"
        self._processes = processes
        self._number = number

    async def prepare(self) -> None:
        """There is nothing to prepare."""

    async def inject(self) -> None:
        """All of them, at once."""
        for each in self._processes:
            send(each, self._number)

    async def undo(self) -> None:
        """There is nothing to do."""

"""What a fault is, and how it is certainly undone.

    note it (left.py) ─► prepare ─► inject ─► ... ─► undo ─► forget the note

A drill that is killed leaves the note; the next drill, or `outgrow down`, undoes what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from outgrow.chaos.faults.left import Left
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note


class Fault(Protocol):
    """One thing that goes wrong. `says` tells it in words; one that `lasts` is there until it is undone.

    `stops` are processes that it may leave stopped.
    """

    says: str
    lasts: bool
    stops: Sequence[Note]

    async def prepare(self) -> None: ...
    async def inject(self) -> None: ...
    async def undo(self) -> None: ...


@asynccontextmanager
async def injected(fault: Fault, left: Left, now: Callable[[], float]) -> AsyncIterator[float]:
    """The fault is there within the block, and gone after it, however that ends. Yields when it began."""
    left.add(fault.stops)
    try:
        await fault.prepare()
        began = now()
        await fault.inject()
        yield began
    finally:
        undoing = asyncio.ensure_future(fault.undo())
        try:
            await asyncio.shield(undoing)
        except asyncio.CancelledError:  # a second Ctrl-C: the undoing goes on to its end
            await undoing
            raise
        finally:
            if undoing.done() and not undoing.cancelled() and undoing.exception() is None:
                left.forget(fault.stops)


def send(process: Note, number: signal.Signals) -> bool:
    """A signal for exactly this process; False when it runs no more."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if orphans.start_time(process.pid) == process.started:
                signal.pidfd_send_signal(descriptor, number)
                return True
        finally:
            os.close(descriptor)
    return False

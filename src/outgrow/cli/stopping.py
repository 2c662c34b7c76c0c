"""Ctrl-C while something is under way: it is cancelled, takes back what it must, then the command ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def until_stopped(work: Coroutine[Any, Any, T], signals: tuple[signal.Signals, ...] = SIGNALS) -> T:
    """What it returns. Raises KeyboardInterrupt once one of the signals has cancelled it."""
    task = asyncio.ensure_future(work)
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

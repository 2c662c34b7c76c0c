"""What commands that change a running fleet have in common: the changes as they happen, and Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from outgrow.cli.console import Console
from outgrow.cli.progress import Progress

if TYPE_CHECKING:
    from outgrow.supervisor.supervisor import Change

T = TypeVar("T")


class Changes:
    """Shows what happens to each node."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(sys.stderr, live=console.live)

    def tell(self, change: Change) -> None:
        """One more."""
        if self._console.as_json:
            self._console.document({"event": "change", **change._asdict()})
        elif change.state in ("starting", "stopping"):
            self._progress.start(change.node, change.text or change.state)
        elif change.state == "failed":
            self._progress.failed(change.node, change.text or change.state)
        else:
            self._progress.done(change.node, change.text or change.state)

    def close(self) -> None:
        """No progress any more: a result or an error follows."""
        self._progress.close()


async def until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Ctrl-C ends the command; the fleet finishes what it has begun."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

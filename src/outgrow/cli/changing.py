"""What commands that change a running fleet have in common: the changes, as they happen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from outgrow.cli.console import Console
from outgrow.cli.progress import Progress

if TYPE_CHECKING:
    from outgrow.growth.runner import Progress as Step
    from outgrow.supervisor.node import Change

BEGINS = ("starting", "stopping", "undoing")


class Changes:
    """Shows what happens to each node, or step by step. `event` names it to programs."""

    def __init__(self, console: Console, event: str = "change") -> None:
        self._console = console
        self._event = event
        self._progress = Progress(sys.stderr, live=console.live)

    def tell(self, change: Change | Step) -> None:
        """One more."""
        name, state, text = change[:3]
        if self._console.as_json:
            self._console.document({"event": self._event, **change._asdict()})
        elif state in BEGINS:
            self._progress.start(name, text or state)
        elif state == "working":
            self._works(name, text)
        elif state == "failed":
            self._progress.failed(name, text or state)
        else:
            self._progress.done(name, text or state)

    def _works(self, name: str, text: str) -> None:
        """On no terminal only whole sentences are lines of their own."""
        if self._console.live:
            self._progress.start(name, text)
        elif text.endswith("."):
            self._console.note(f"  {name}: {text}")

    def close(self) -> None:
        """No progress any more: a result or an error follows."""
        self._progress.close()

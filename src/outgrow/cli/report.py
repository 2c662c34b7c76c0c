"""What `up` and `down` say of the nodes: progress while they start and stop, lines in between."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
import msgspec

from outgrow.cli import units
from outgrow.cli.console import Console, bad, dim, doubtful, good, hang_up, strong
from outgrow.cli.progress import Progress

if TYPE_CHECKING:
    from outgrow.cluster import Status
    from outgrow.supervisor.node import Change

_MARKS = {
    "starting": dim("…"),
    "ready": good("✓"),
    "done": good("✓"),
    "restarting": doubtful("↻"),
    "failed": bad("✗"),
}


class Report:
    """The story of one fleet. With --json each event is one line of JSON.

    When nobody reads any more (the terminal is gone), it goes on in silence: a fleet does not stop,
    and above all does not fail to stop, because of that.
    """

    def __init__(self, console: Console, *, began: float, detached: bool = False) -> None:
        self._console = console
        self._began = began
        self._detached = detached
        self._progress = Progress(sys.stderr, live=console.live)
        self._under_way: set[str] = set()
        self.is_ready = False

    def change(self, change: Change) -> None:
        """A node has changed its state."""
        try:
            if self._console.as_json:
                self._event("change", change._asdict())
            elif self.is_ready and change.state not in ("stopping", "stopped"):
                self._while_running(change)
            else:
                self._step(change)
        except OSError:
            hang_up()

    def ready(self, status: Status) -> None:
        """Everything runs."""
        self.is_ready = True
        try:
            self._progress.close()
            if self._console.as_json:
                self._event("ready", msgspec.to_builtins(status))
            else:
                click.echo(self._running(status))
                for warning in status.warnings:
                    self._console.note(f"{doubtful('warning:')} {warning}")
        except OSError:
            hang_up()

    def stopped(self) -> None:
        """Everything has ended."""
        try:
            if self._console.as_json:
                self._event("stopped", {})
            else:
                self._console.note("stopped; the data is kept")
        except OSError:
            hang_up()

    def close(self) -> None:
        """No progress any more: an error may follow."""
        try:
            self._progress.close()
        except OSError:
            hang_up()

    def _event(self, name: str, facts: dict[str, object]) -> None:
        self._console.document({"event": name, **facts})

    def _step(self, change: Change) -> None:
        text = change.text or change.state
        if change.state in ("starting", "stopping"):
            self._under_way.add(change.node)
            self._progress.start(change.node, text)
        elif change.node in self._under_way:  # else it had not begun, and nothing is to be told of its end
            self._under_way.discard(change.node)
            end = self._progress.failed if change.state == "failed" else self._progress.done
            end(change.node, text)

    def _while_running(self, change: Change) -> None:
        text = f": {change.text}" if change.text else ""
        mark = _MARKS.get(change.state, " ")
        self._console.note(f"{dim(time.strftime('%H:%M:%S'))} {mark} {change.node} {change.state}{text}")

    def _running(self, status: Status) -> str:
        from outgrow import stages

        number = stages.find(status.stage).number
        took = dim(f"after {units.span(time.monotonic() - self._began)}")
        after = (
            "`outgrow logs -f` follows it, `outgrow down` stops it" if self._detached else "Ctrl-C stops it"
        )
        url = click.style(status.url, fg="cyan", underline=True)
        page = click.style(status.dashboard or "", fg="cyan", underline=True)
        return (
            f"\n{strong(status.application)} runs at stage {number}, {status.stage}, {took}\n\n"
            f"    {url}    {dim(after)}\n" + (f"    {page}    {dim('the dashboard')}\n" if page else "")
        )

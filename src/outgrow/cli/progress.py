"""What `up` and other long work say while they go on: one line that changes, or plain lines.

On a terminal the line in work is redrawn with a spinner and its time; when it is done it stays.
Elsewhere every step is a line when it begins and a line when it is done, so a log of it is whole.
"""

from __future__ import annotations

import asyncio
import time
from typing import TextIO

import click

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_S = 0.08
_CLEAR = "\r\x1b[2K"


class Progress:
    """Steps of long work on one stream. `live` redraws; it needs a running event loop."""

    def __init__(self, stream: TextIO, *, live: bool) -> None:
        self._stream = stream
        self._live = live
        self._open: dict[str, tuple[float, str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._frame = 0

    def start(self, name: str, text: str) -> None:
        """`name` begins, or what it does has changed."""
        started = self._open[name][0] if name in self._open else time.monotonic()
        self._open[name] = (started, text)
        if self._live:
            self._redraw()
        else:
            self._line(f"  {name}: {text}")

    def done(self, name: str, text: str) -> None:
        """`name` is done."""
        self._end(name, click.style("✓", fg="green"), text)

    def failed(self, name: str, text: str) -> None:
        """`name` has failed; the error that follows says why."""
        self._end(name, click.style("✗", fg="red"), text)

    def close(self) -> None:
        """No more steps: the line in work goes."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._live:
            self._write(_CLEAR)

    def _end(self, name: str, mark: str, text: str) -> None:
        started, _ = self._open.pop(name, (time.monotonic(), ""))
        took = click.style(f"{time.monotonic() - started:.1f} s", dim=True)
        self._line(
            f"{mark} {name} {text} {took}" if self._live else f"  {name}: {text} ({click.unstyle(took)})"
        )
        if self._live:
            self._redraw()

    def _line(self, text: str) -> None:
        self._write(f"{_CLEAR}{text}\n" if self._live else f"{text}\n")

    def _redraw(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._open:
            self._write(_CLEAR)
            return
        self._frame += 1
        now = time.monotonic()
        parts = [f"{name} {text} {now - started:.0f} s" for name, (started, text) in self._open.items()]
        self._write(
            f"{_CLEAR}{click.style(_FRAMES[self._frame % len(_FRAMES)], fg='cyan')} {', '.join(parts)}"
        )
        self._timer = asyncio.get_running_loop().call_later(_FRAME_S, self._redraw)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

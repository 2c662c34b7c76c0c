"""When to start a program again that has ended. Pure: it is told the time."""

from __future__ import annotations

from collections import deque

from outgrow.workload import Restart


class Backoff:
    """The deaths of one node: those within the window count, and all since it was last ready.

    The window alone would not do: where becoming ready may take as long as it, a program that never
    does would be started for ever.
    """

    def __init__(self, restart: Restart) -> None:
        self._restart = restart
        self._deaths: deque[float] = deque(maxlen=restart.limit)
        self._in_a_row = 0

    def after_death(self, now: float) -> float | None:
        """How many seconds to wait before the next start; None when it has died too often."""
        self._deaths.append(now)
        self._in_a_row += 1
        count = max(self._recent(now), self._in_a_row)
        if count >= self._restart.limit:
            return None
        return min(self._restart.delay_max_s, self._restart.first_delay_s * 2.0 ** (count - 1))

    def ready(self) -> None:
        """It has become ready."""
        self._in_a_row = 0

    def verdict(self) -> str:
        """Why it is given up, in words."""
        limit, window_s = self._restart.limit, self._restart.window_s
        if self._recent(self._deaths[-1]) >= limit:
            return f"died {limit} times within {window_s:g} s"
        return f"died {limit} times without being ready in between"

    def _recent(self, now: float) -> int:
        return sum(1 for death in self._deaths if now - death < self._restart.window_s)

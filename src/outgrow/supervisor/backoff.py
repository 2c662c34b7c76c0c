"""When to start a program again that has ended. Pure: it is told the time."""

from __future__ import annotations

from collections import deque

from outgrow.workload import Restart


class Backoff:
    """The deaths of one node."""

    def __init__(self, restart: Restart) -> None:
        self._restart = restart
        self._deaths: deque[float] = deque(maxlen=restart.limit)

    def after_death(self, now: float) -> float | None:
        """How many seconds to wait before the next start; None when it has died too often."""
        self._deaths.append(now)
        recent = sum(1 for death in self._deaths if now - death < self._restart.window_s)
        if recent >= self._restart.limit:
            return None
        return min(self._restart.delay_max_s, self._restart.first_delay_s * 2.0 ** (recent - 1))

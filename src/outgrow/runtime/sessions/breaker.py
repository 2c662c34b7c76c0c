"""Does not ask again and again what is down: after some failures in a row it rests for a moment.

Without it every request that brings a cookie would wait for a store that does not answer.
"""

from __future__ import annotations

import time

from outgrow.errors import SessionsUnavailable

FAILURES = 3
REST_S = 1.0


class Breaker:
    """Counts failures in a row; any success ends the count."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def require_closed(self) -> None:
        """Raises SessionsUnavailable while it rests."""
        if self._failures >= FAILURES and time.monotonic() < self._until:
            raise SessionsUnavailable("it has just failed several times, and is asked again in a moment")

    def failed(self) -> None:
        self._failures += 1
        self._until = time.monotonic() + REST_S

    def worked(self) -> None:
        self._failures = 0

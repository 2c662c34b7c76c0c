"""Does not ask again and again what is down: after some failures in a row it rests for a moment.

    failures in a row ─► it rests, twice as long each time ─► one more attempt ─► failed ─► it rests ...
                                                                                 └► worked: closed

Without it every request would wait for a server that does not answer.
"""

from __future__ import annotations

import time

REST_S = 1.0


class Breaker:
    """Counts failures in a row; any success ends the count."""

    def __init__(self, failures: int, rest_s_max: float = REST_S) -> None:
        self._enough, self._rest_s_max = failures, rest_s_max
        self._failures = 0
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether it has failed so often that the next attempt is a trial."""
        return self._failures >= self._enough

    @property
    def rest_s(self) -> float:
        """So long it is not to be asked; 0 when it may be."""
        return max(0.0, self._until - time.monotonic()) if self.open else 0.0

    def failed(self) -> None:
        """Once more."""
        self._failures += 1
        again = min(max(0, self._failures - self._enough), 16)
        self._until = time.monotonic() + min(REST_S * 2**again, self._rest_s_max)

    def worked(self) -> None:
        """It is as it should be."""
        self._failures = 0

"""Whether a server answers too slowly to be worth asking: at half of a second's looks somebody waits long.

A cache that needs longer than the database is none, and one that hangs now and then costs every request that
asks it just then. It is looked at in time and not answer by answer: between two pauses so many quick answers
may come that an average would show nothing. A busy process waits for itself, too, between an answer's arrival
and its reading: how long that is its own timers tell, and it is no fault of the server.
"""

from __future__ import annotations

from collections import deque

LOOK_S = 0.1
LOOKS = 10
ENOUGH = 5
SLOW_S = 0.05
"""A server nearby needs a thousandth of it, one in another zone a twentieth."""

LAGS = 4
"""A question is sent, received and read in turns of the event loop. A timer is late by half a turn, on
average."""


class Slowness:
    """Of one connection."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=LOOKS)

    def look(self, waits_s: float, lag_s: float) -> bool:
        """Whether it is too slow. The oldest question waits for so long; this look is late by `lag_s`."""
        self._seen.append((waits_s, lag_s))
        if len(self._seen) < LOOKS:
            return False
        limit = SLOW_S + LAGS * sum(lag for _, lag in self._seen) / LOOKS
        return sum(waits > limit for waits, _ in self._seen) >= ENOUGH

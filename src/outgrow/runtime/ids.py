"""64-bit ids, ordered by time, unique over shards and regions without coordination.

    0  41 bits: milliseconds since 2024-01-01   10 bits: worker   12 bits: counter

After Snowflake (Twitter, 2010). 41 bits last until 2093. A process takes its worker number from
OUTGROW_WORKER, which the fleet assigns; without one it is drawn at random, which makes a collision
of two processes possible (1 in 1,024 for a pair) and is right only for scripts and a single server.
"""

from __future__ import annotations

import os
import secrets
import time

EPOCH_MS = 1_704_067_200_000
WORKER_BITS = 10
COUNTER_BITS = 12
_COUNTER_MASK = (1 << COUNTER_BITS) - 1


class Ids:
    """A generator of ids, for one process and one event loop. `next` never goes backwards.

    When the clock is set back it goes on from the last id, and when one millisecond's 4,096 ids
    are used up it borrows from the next: ids stay unique and ordered, a little ahead of the clock.
    """

    __slots__ = ("_last", "_worker")

    def __init__(self, worker: int | None = None) -> None:
        if worker is None:
            assigned = os.environ.get("OUTGROW_WORKER")
            worker = int(assigned) if assigned else secrets.randbelow(1 << WORKER_BITS)
        if not 0 <= worker < 1 << WORKER_BITS:
            raise ValueError(f"a worker number is 0 to {(1 << WORKER_BITS) - 1}, not {worker}")
        self._worker = worker << COUNTER_BITS
        self._last = 0

    def next(self) -> int:
        """The next id."""
        ticks = (int(time.time() * 1000) - EPOCH_MS) << COUNTER_BITS
        self._last = ticks if ticks > self._last else self._last + 1
        return (
            (self._last >> COUNTER_BITS) << (COUNTER_BITS + WORKER_BITS)
            | self._worker
            | self._last & _COUNTER_MASK
        )


def created_ms(identifier: int) -> int:
    """When an id was made: Unix time in milliseconds."""
    return (identifier >> (WORKER_BITS + COUNTER_BITS)) + EPOCH_MS

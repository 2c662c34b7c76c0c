"""How many reads the primary takes over from replicas at once, and how long others wait for that."""

from __future__ import annotations

import asyncio
from collections import deque

from outgrow.errors import Unavailable
from outgrow.runtime.events import Events

SHED_AFTER_S = 0.5


class Budget:
    """Places for reads that belong on a replica. What finds none in time is shed.

    Without it the loss of all replicas would be the loss of the primary: it would drown in their reads,
    and writes with it.
    """

    __slots__ = ("_events", "_places", "_shard", "_waiters", "used")

    def __init__(self, shard: str, places: int, events: Events) -> None:
        self._shard = shard
        self._places = places
        self._events = events
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.used = 0

    def resize(self, places: int) -> None:
        """So many from now on."""
        self._places = places
        while self._waiters and self.used < self._places:
            self._hand_over()

    async def enter(self) -> None:
        """Take a place. Raises Unavailable when there is none in time."""
        if self.used < self._places:
            self.used += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(SHED_AFTER_S):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.leave()
            if not isinstance(error, TimeoutError):
                raise
            self._events.read_shed(self._shard)
            raise Unavailable(
                f"no replica of shard {self._shard} can serve, and the primary has {self._places} reads in "
                "their place",
                hint="wait until a replica is back, or raise database.pool in outgrow.toml",
            ) from None

    def leave(self) -> None:
        """Give the place back."""
        self.used -= 1
        if self._waiters and self.used < self._places:
            self._hand_over()

    def _hand_over(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.used += 1
                waiter.set_result(None)
                return

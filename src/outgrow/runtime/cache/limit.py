"""How many loads run at once in this process, so that the database is never flattened by its cache.

    a load ─► a place is free? ─► it runs ─► the place goes to who waits longest
                └ no ─► it waits its turn

Without it the loss of what all processes share would be the loss of the database: every read would want a
connection at the same moment, and writes would get none. Whatever a load gets from the cache itself is a part
of it and needs no place of its own: else loads that wait for their parts could hold all places for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from time import perf_counter
from typing import TypeVar

from outgrow.errors import Unavailable

V = TypeVar("V")

WAIT_S = 5.0
"""So long a load waits at most: as long as by default for a connection."""

WARM_S = 5.0
"""After the shared cache has come back half of the places are there, and so much later all of them."""

placed: ContextVar[bool] = ContextVar("outgrow.cache.place", default=False)
"""Whether the caller runs inside of a load that has a place."""


def places_of(pool: int) -> int:
    """Of a pool of so many connections: a quarter stays for writes, and for reads past the cache."""
    return max(1, pool - max(1, pool // 4))


class Limit:
    """`waited` is told for how many seconds a load has waited for its place."""

    def __init__(self, places: int, waited: Callable[[float], None]) -> None:
        self._most = self._places = places
        self._waited = waited
        self._waiting: dict[object, asyncio.Future[None]] = {}
        self._warming: asyncio.TimerHandle | None = None
        self.used = 0

    def figures(self) -> dict[str, int]:
        """Loads that have a place, and loads that wait for one."""
        return {"running": self.used, "waiting": len(self._waiting)}

    def resize(self, places: int) -> None:
        """At most so many from now on."""
        self._most = self._places = places
        self._hand_over()

    def warm_up(self) -> None:
        """What was kept is to be loaded again: not all of it at once."""
        if self._warming is not None:
            self._warming.cancel()
        self._places = max(1, self._most // 2)
        self._later()

    async def run(self, load: Callable[[], Awaitable[V]]) -> V:
        """What `load` returns, in its turn. Raises Unavailable when that does not come in time."""
        if placed.get():
            return await load()
        await self.enter(object())
        token = placed.set(True)
        try:
            return await load()
        finally:
            placed.reset(token)
            self.leave()

    async def enter(self, who: object) -> bool:
        """Take a place, and whether it had to be waited for. Raises Unavailable."""
        if self.used < self._places and not self._waiting:
            self.used += 1
            return False
        started = perf_counter()
        turn = self._waiting[who] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException as error:
            self._waiting.pop(who, None)
            if turn.done() and not turn.cancelled():
                self.leave()
            if not isinstance(error, TimeoutError):
                raise
            raise Unavailable(
                f"{self._places} loads of the cache were running for {WAIT_S:g} s, which is all that may",
                hint="make them faster, or raise cache.loads in outgrow.toml",
            ) from None
        self._waited(perf_counter() - started)
        return True

    def leave(self) -> None:
        """Give the place back."""
        self.used -= 1
        self._hand_over()

    def hurry(self, who: object) -> None:
        """A load that has a place waits for this one, which so becomes a part of it."""
        turn = self._waiting.pop(who, None)
        if turn is not None and not turn.done():
            self.used += 1
            turn.set_result(None)

    def _hand_over(self) -> None:
        while self._waiting and self.used < self._places:
            turn = self._waiting.pop(next(iter(self._waiting)))
            if not turn.done():
                self.used += 1
                turn.set_result(None)

    def _later(self) -> None:
        steps = max(1, self._most - self._most // 2)
        self._warming = asyncio.get_running_loop().call_later(WARM_S / steps, self._warmer)

    def _warmer(self) -> None:
        self._warming = None
        if self._places < self._most:
            self._places += 1
            self._hand_over()
            self._later()

"""The shared cache as its Redis sees it: how full it is, and what goes to make room. Asked once a second."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from outgrow.engines import Placement
from outgrow.engines.redis import cache as redis_cache
from outgrow.engines.redis.cache import Figures
from outgrow.errors import OutgrowError


class Look(NamedTuple):
    """One that was answered."""

    at: float
    figures: Figures


class SharedCache:
    """What it has said in the last few seconds."""

    def __init__(self, place: Placement, *, looks: int) -> None:
        self._place = place
        self._looks: deque[Look] = deque(maxlen=looks)

    async def look(self, urls: Sequence[str]) -> None:
        """Ask its nodes, if there are any. One that does not answer says nothing."""
        if not urls:
            self._looks.clear()
            return
        try:
            figures = await asyncio.to_thread(redis_cache.together, urls, self._place)
        except OutgrowError:
            self._looks.clear()
            return
        self._looks.append(Look(time.time(), figures))

    @property
    def now(self) -> Figures | None:
        """The newest figures; None when there are none."""
        return self._looks[-1].figures if self._looks else None

    @property
    def evicted(self) -> float | None:
        """How many entries a second had to go; None when that is not known."""
        if len(self._looks) < 2:
            return None
        first, last = self._looks[0], self._looks[-1]
        # Counted from 0 by one that has begun anew.
        return max(last.figures.evicted - first.figures.evicted, 0) / (last.at - first.at)

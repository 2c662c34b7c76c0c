"""The stores of this process's sessions, which may become others while it serves.

    endpoints: redis, also database  ─►  Moving(home=redis, other=database)

A store that stays is kept as it is, above all the one in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from outgrow import endpoints
from outgrow.runtime.sessions.moving import Moving
from outgrow.runtime.sessions.store import Movable, Store


class Places:
    """`make` gives the store that is named, not opened. It may load a driver, and raise Misuse."""

    def __init__(
        self, settings: endpoints.Sessions, make: Callable[[endpoints.SessionStore], Movable]
    ) -> None:
        self._make = make
        self._stores = {each: make(each) for each in _named(settings)}
        self.store: Store = self._joined(settings)

    async def become(self, settings: endpoints.Sessions) -> list[Store]:
        """What these settings say, open. Returns those that are left, to be closed when nobody asks them.

        Raises Misuse, and nothing has changed then.
        """
        stores = {}
        for each in _named(settings):
            stores[each] = self._stores.get(each) or await self._opened(each)
        left: list[Store] = [store for each, store in self._stores.items() if each not in stores]
        self._stores = stores
        self.store = self._joined(settings)
        return left

    async def _opened(self, named: endpoints.SessionStore) -> Movable:
        store = await asyncio.to_thread(self._make, named)  # a driver takes a moment to load
        await store.open()
        return store

    def _joined(self, settings: endpoints.Sessions) -> Store:
        home, *others = (self._stores[each] for each in _named(settings))
        return Moving(home, others[0]) if others else home


def _named(settings: endpoints.Sessions) -> list[endpoints.SessionStore]:
    """Home first."""
    home = endpoints.SessionStore(settings.engine, settings.url)
    return [home, settings.also] if settings.also is not None else [home]

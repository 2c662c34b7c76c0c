"""Two stores, while a running application's sessions move from one to the other.

    other ── freeze ─► put into home ─► discard ──►      each step may be repeated, by whoever finds it so
      1        2            3             4

A record that can be changed is in one of the two at any moment, and so is every version of it: frozen, it
has one more, and one more where it arrives. So whoever has read it anywhere can `replace` it wherever it is
now, if nobody else has changed it. New sessions begin at home. A process that knows one of the stores alone
must not meet one that carries: all know both before the first record moves, and none is left when the
last process forgets the other store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from outgrow.errors import SessionConflict
from outgrow.runtime.sessions.store import AWAY, Movable, Record

CARRIED_WITHIN_S = 20.0
"""From the look at a frozen record until it is put: whoever was stopped for longer looks again, since what
tells of an ended session is forgotten after a minute."""

LOOKS = 8
AT_ONCE = 4
"""Sessions that are carried side by side: the application needs connections to the stores, too."""


class Moving:
    """The contract of a store over two of them. Each method raises what theirs do."""

    def __init__(self, home: Movable, other: Movable) -> None:
        self.home = home
        self.other = other

    async def open(self) -> None:
        await self.home.open()
        await self.other.open()

    async def close(self) -> None:
        await self.home.close()
        await self.other.close()

    async def load(self, key: str) -> Record | None:
        """Home, the other, and home again: between the first two looks it may have come home."""
        for _ in range(LOOKS):
            for here, there in ((self.home, self.other), (self.other, self.home), (self.home, self.other)):
                found = await here.load(key)
                if found is not None and found.moved == AWAY:
                    await _carry(key, here, there)
                    break
                if found is not None:
                    return found
            else:
                return None
        raise SessionConflict("a session did not come to rest between two stores", hint="repeat the request")

    async def add(self, key: str, record: Record, kept_ms: int) -> None:
        await self.home.add(key, record, kept_ms)

    async def replace(self, key: str, version: int, record: Record, kept_ms: int) -> bool:
        """Wherever it is in that version."""
        return await self.home.replace(key, version, record, kept_ms) or await self.other.replace(
            key, version, record, kept_ms
        )

    async def touch(self, key: str, expires: int, kept_ms: int) -> None:
        """At last at home, where it is by then if it was frozen in the other store."""
        await self.other.touch(key, expires, kept_ms)
        found = await self.other.load(key)
        if found is not None and found.moved == AWAY:
            await _carry(key, self.other, self.home)
        await self.home.touch(key, expires, kept_ms)

    async def remove(self, key: str) -> None:
        await self.other.remove(key)
        await self.home.remove(key)

    async def check(self) -> str:
        return f"{await self.home.check()}; some {await self.other.check()}"

    async def carry(self, until: float) -> tuple[int, bool]:
        """Bring home what is in the other store, until that moment of the monotonic clock.

        Returns how many, and whether there may be more.
        """
        return await self._each(self._bring_home, until)

    async def clear(self, until: float) -> tuple[int, bool]:
        """Likewise remove all that is in the other store: of an earlier time, when nothing has moved yet."""
        return await self._each(self.other.remove, until)

    async def _bring_home(self, key: str) -> None:
        await self.other.freeze(key)
        await _carry(key, self.other, self.home)

    async def _each(self, work: Callable[[str], Awaitable[None]], until: float) -> tuple[int, bool]:
        count, keys = 0, []
        async for key in self.other.keys():
            keys.append(key)
            if len(keys) == AT_ONCE:
                await asyncio.gather(*map(work, keys))
                count, keys = count + len(keys), []
                if time.monotonic() > until:
                    return count, True
        await asyncio.gather(*map(work, keys))
        return count + len(keys), False


async def _carry(key: str, source: Movable, target: Movable) -> None:
    """What nobody can change in the source any more: a frozen session, or a note of what became of it."""
    while True:
        began = time.monotonic()
        found = await source.load(key)
        if found is None or not found.moved:
            return
        kept_ms = found.expires - int(time.time() * 1000)
        arrives = found._replace(version=found.version + 1, moved="") if found.moved == AWAY else found
        if time.monotonic() - began > CARRIED_WITHIN_S:
            continue
        if kept_ms > 0:
            await target.put(key, arrives, kept_ms)
        await source.discard(key, found.version)
        return

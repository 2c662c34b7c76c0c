"""The gate in front of the writers of one shard.

A live move holds it for a moment: writers under way end, new ones wait, and when it opens again the
primary may be another one. Reads never pass here.
"""

from __future__ import annotations

import asyncio

from outgrow.errors import Unavailable


class Gate:
    """Counts the write blocks inside, and can be held shut."""

    __slots__ = ("_held", "_inside", "_left", "_patience_s")

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._inside = 0
        self._held: asyncio.Event | None = None
        self._left: asyncio.Event | None = None

    @property
    def held(self) -> bool:
        """Whether new write blocks wait."""
        return self._held is not None

    @property
    def inside(self) -> int:
        """How many write blocks are open."""
        return self._inside

    async def enter(self) -> None:
        """Called by each write block before it takes a connection. Raises Unavailable when held too long."""
        if self._held is not None:
            try:
                async with asyncio.timeout(self._patience_s):
                    while self._held is not None:
                        await self._held.wait()
            except TimeoutError:
                raise Unavailable(
                    f"writes were held for {self._patience_s:g} s while the database moves",
                    hint="try again; `outgrow status` tells how far the move is",
                ) from None
        self._inside += 1

    def leave(self) -> None:
        """The block has ended, however."""
        self._inside -= 1
        if self._left is not None and not self._inside:
            self._left.set()

    async def hold(self, within_s: float) -> None:
        """Let nobody in, and wait until everybody is out. Raises TimeoutError, and is open again then."""
        if self._held is None:
            self._held = asyncio.Event()
        if not self._inside:
            return
        self._left = asyncio.Event()
        try:
            async with asyncio.timeout(within_s):
                await self._left.wait()
        except BaseException:
            self.release()
            raise
        finally:
            self._left = None

    def release(self) -> None:
        """Let them in again."""
        held, self._held = self._held, None
        if held is not None:
            held.set()

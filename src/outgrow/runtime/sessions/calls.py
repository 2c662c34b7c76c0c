"""How many calls of a store are under way."""

from __future__ import annotations

import asyncio


class Calls:
    """A context around each call."""

    __slots__ = ("_count", "_none_left")

    def __init__(self) -> None:
        self._count = 0
        self._none_left: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._none_left is not None and not self._count:
            self._none_left.set()

    async def ended(self) -> None:
        """When all that have begun have ended. Each has a time limit of its own."""
        if self._count:
            self._none_left = asyncio.Event()
            await self._none_left.wait()

"""Loads under way: who waits for which, and what their values depend on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from outgrow.errors import Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Bookmark, Position
from outgrow.runtime.cache.memory import Note, Reading

V = TypeVar("V")


class Load(Reading):
    """A load under way: since which position, and with which versions of the tags.

    A load may get parts of its value from the cache, or wait for other loads. What those parts depend
    on is then as old as they are, and the loads that it waits for are known, so that a circle of them
    is told instead of waiting for ever. `part`: another load that has a place waits for it (limit.py).
    """

    __slots__ = ("floor", "key", "part", "task", "waits_for")

    def __init__(self, key: str, note: Note, position: Position) -> None:
        super().__init__(note, position)
        self.key = key
        self.floor = ZERO
        self.part = False
        self.task: asyncio.Task[Any]
        self.waits_for: set[Load] = set()

    def read_at(self, position: Position) -> None:
        """A part of it was read from a node that shows no more than this for certain (scope.Loading)."""
        self.position = min(self.position, position)

    def serves(self, bookmark: Bookmark | None) -> bool:
        """Whether a caller who comes now may have its value. A part from the cache can make this untrue
        later."""
        return self.promising() and (bookmark is None or self.covers(bookmark))

    def noted(self) -> bool:
        """Whether it is known of what it depends on, and that this has not changed."""
        return all(version >= 0 and tag.version == version for tag, version in self.note)

    def promising(self) -> bool:
        """Whether nothing was invalidated of what it has, or waits for."""
        return self.intact() and all(load.promising() for load in self.waits_for)

    async def wait(self, part: Load, result: Awaitable[V]) -> V:
        """The result, which is to be a part of this load's own."""
        self.waits_for.add(part)
        try:
            return await result
        finally:
            self.waits_for.discard(part)
            self.take_part(part)

    def needs(self, other: Load) -> bool:
        """Whether it waits for the other, directly or not."""
        return self is other or any(load.needs(other) for load in self.waits_for)


around = cast("ContextVar[Load | None]", request.loading)
"""The load inside of which the caller runs."""


async def result(load: Load, outer: Load | None) -> Any:
    """The load's value, which `outer` needs; the caller may be cancelled without harm to it."""
    if outer is None:
        return await asyncio.shield(load.task)
    if load.needs(outer):
        raise Misuse(
            f"the load of {load.key!r} needs {outer.key!r}, whose load needs {load.key!r}",
            hint="a value in the cache cannot be made from itself",
        )
    return await outer.wait(load, asyncio.shield(load.task))


def being_cancelled() -> bool:
    """Whether it is the caller who is cancelled, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

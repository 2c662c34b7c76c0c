"""Entries in this process, the least recently used evicted first. Over cachebox, which is native."""

from __future__ import annotations

from typing import Any

from cachebox import LRUCache

from outgrow.runtime.bookmark import Position


class Tag:
    """What is known of one tag: how often it was invalidated here, and the newest position of that.

    An entry is good as long as the versions of its tags are those that its load began with. A load
    that read below the floor (on a server that lags) must not be stored, whenever it began.
    """

    __slots__ = ("__weakref__", "floor", "name", "version")

    def __init__(self, name: str, floor: Position) -> None:
        self.name = name
        self.version = 0
        self.floor = floor


class Entry:
    """One value with what it was read at and what it depends on. Times are time.monotonic() seconds."""

    __slots__ = ("expires", "position", "prefix", "tags", "value")

    def __init__(
        self, value: Any, position: Position, expires: float, tags: tuple[tuple[Tag, int], ...], prefix: str
    ) -> None:
        self.value = value
        self.position = position
        self.expires = expires
        self.tags = tags
        self.prefix = prefix


def entries(count_max: int) -> LRUCache[str, Entry]:
    """A store of at most this many entries."""
    return LRUCache(count_max)

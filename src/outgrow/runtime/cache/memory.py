"""Entries in this process, the least recently used evicted first. Over cachebox, which is native."""

from __future__ import annotations

from time import monotonic
from typing import Any

from cachebox import LRUCache

from outgrow.runtime.bookmark import ZERO, Position


class Tag:
    """What is known of one tag: how often it was invalidated here, and the newest position of that.

    An entry is good as long as the versions of its tags are those that its load began with. A load
    that read below the floor (on a server that lags) must not be stored, whenever it began.
    """

    __slots__ = ("__weakref__", "floor", "name", "version")

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = 0
        self.floor = ZERO


Note = tuple[tuple[Tag, int], ...]
"""Tags with their versions at one moment."""


class Entry:
    """One value with what it was read at and what it depends on. Times are time.monotonic() seconds."""

    __slots__ = ("expires", "note", "position", "prefix", "value")

    def __init__(self, value: Any, position: Position, expires: float, note: Note, prefix: str) -> None:
        self.value = value
        self.position = position
        self.expires = expires
        self.note = note
        self.prefix = prefix

    def alive(self) -> bool:
        """In time, and none of its tags invalidated since its load began."""
        return self.expires > monotonic() and all(tag.version == version for tag, version in self.note)


def entries(count_max: int) -> LRUCache[str, Entry]:
    """A store of at most this many entries."""
    return LRUCache(count_max)

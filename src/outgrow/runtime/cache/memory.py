"""Entries in this process, the least recently used evicted first. Over cachebox, which is native."""

from __future__ import annotations

from time import monotonic
from typing import Any

from cachebox import LRUCache

from outgrow.runtime.bookmark import ZERO, Bookmark, Position, tag_hash


class Tag:
    """What is known of one tag: how often it was invalidated here, and the newest position of that.

    An entry is good as long as the versions of its tags are those that its load began with. What
    was read below the floor (on a server that lags) must not be stored, whenever it began. A version
    below 0 is none: what all processes share is not known of the tag (shared.py), and nothing that depends
    on it is stored.
    """

    __slots__ = ("__weakref__", "floor", "hash", "name", "version")

    def __init__(self, name: str, floor: Position = ZERO) -> None:
        self.name = name
        self.hash = tag_hash(name)
        self.version = 0
        self.floor = floor

    def forget(self) -> None:
        """From now on its version is not known, and none that it had."""
        self.version = -abs(self.version) - 1


Note = tuple[tuple[Tag, int], ...]
"""Tags with their versions at one moment."""


class Reading:
    """What a value depends on, and since when that is known of it.

    It was read at `position`, but for what came from the cache: `older` says how old that was, by the
    hash of the tag. So a value made of parts depends on what they depend on, and may be kept although
    one of them was read long ago: the part is good as long as its own tags are.
    """

    __slots__ = ("hashes", "note", "older", "position")

    def __init__(self, note: Note, position: Position, older: dict[int, Position] | None = None) -> None:
        self.note = note
        self.hashes = frozenset([tag.hash for tag, _ in note])
        self.position = position
        self.older: dict[int, Position] = {} if older is None else older

    def intact(self) -> bool:
        """Whether none of its tags was invalidated since it began."""
        for tag, version in self.note:  # noqa: SIM110 - a generator takes twice as long
            if tag.version != version:
                return False
        return True

    def keepable(self) -> bool:
        """Whether it is intact, and read no earlier than the newest invalidation of each tag."""
        older, position = self.older, self.position
        for tag, version in self.note:
            if version < 0 or tag.version != version or older.get(tag.hash, position) < tag.floor:
                return False
        return True

    def covers(self, bookmark: Bookmark) -> bool:
        """Whether the session wrote none of these tags after they were read."""
        if bookmark.forgotten > min(self.older.values(), default=self.position):
            return False
        if not self.older:
            floor = bookmark.floor(self.hashes)
            return floor is None or floor <= self.position
        for tag in self.hashes & bookmark.tags.keys():
            floor = bookmark.floor((tag,))
            if floor is not None and floor > self._at(tag):
                return False
        return True

    def take_part(self, part: Reading) -> None:
        """A part of the value was read as this tells: the value depends on the part's tags, too, and is as
        old in each as the older of the two."""
        if not part.hashes <= self.hashes:
            self.note = (*self.note, *[each for each in part.note if each[0].hash not in self.hashes])
            self.hashes |= part.hashes
        if part.older or part.position < self.position:
            mine, position, theirs, read = self.older, self.position, part.older, part.position
            for tag in part.hashes:  # hot: a page of articles has forty
                at = theirs.get(tag, read)
                if at < mine.get(tag, position):
                    mine[tag] = at

    def _at(self, tag: int) -> Position:
        return self.older.get(tag, self.position)


class Entry(Reading):
    """One value. From `expires` on it is loaded anew, and served until `until` meanwhile (monotonic())."""

    __slots__ = ("expires", "prefix", "until", "value")

    def __init__(self, value: Any, reading: Reading, expires: float, until: float, prefix: str) -> None:
        self.note = reading.note
        self.hashes = reading.hashes
        self.position = reading.position
        self.older = reading.older
        self.value = value
        self.expires = expires
        self.until = until
        self.prefix = prefix

    def alive(self) -> bool:
        """In time and intact."""
        return self.until > monotonic() and self.intact()


def entries(count_max: int) -> LRUCache[str, Entry]:
    """A store of at most this many entries."""
    return LRUCache(count_max)

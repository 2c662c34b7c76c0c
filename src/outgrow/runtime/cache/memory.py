"""Entries in this process, and what goes when there are too many. Over cachebox, which is native."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

import msgspec
from cachebox import FIFOCache, LFUCache, LRUCache, RRCache

from outgrow import endpoints
from outgrow.runtime.bookmark import ZERO, Bookmark, Position, tag_hash


class Tag:
    """What is known of one tag: how often it was invalidated here, and the newest position of that.

    An entry is good as long as the versions of its tags are those that its load began with. What
    was read below the floor (on a server that lags) must not be stored, whenever it began. A version
    below 0 is none: what all processes share is not known of the tag (shared.py), and nothing that depends
    on it is stored.
    """

    __slots__ = ("__weakref__", "_hash", "floor", "name", "version")

    def __init__(self, name: str, floor: Position = ZERO) -> None:
        self.name = name
        self._hash: int | None = None
        self.version = 0
        self.floor = floor

    @property
    def hash(self) -> int:
        """By which bookmarks know it. Worked out when somebody asks: that takes a microsecond."""
        if self._hash is None:
            self._hash = tag_hash(self.name)
        return self._hash

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

    __slots__ = ("_hashes", "note", "older", "position")

    def __init__(self, note: Note, position: Position, older: dict[int, Position] | None = None) -> None:
        self.note = note
        self._hashes: frozenset[int] | None = None
        self.position = position
        self.older: dict[int, Position] = {} if older is None else older

    @property
    def hashes(self) -> frozenset[int]:
        """Of its tags. Worked out when somebody asks."""
        if self._hashes is None:
            self._hashes = frozenset([tag.hash for tag, _ in self.note])
        return self._hashes

    def depends_on(self, note: Note) -> None:
        """On these tags, at these versions, and on no others."""
        self.note, self._hashes = note, None

    def intact(self) -> bool:
        """Whether none of its tags was invalidated since it began."""
        for tag, version in self.note:  # noqa: SIM110 - a generator takes twice as long
            if tag.version != version:
                return False
        return True

    def shows(self) -> Position:
        """Whoever has seen it has seen this much: none of its tags has changed since, while it is intact."""
        newest = ZERO
        for tag, _ in self.note:  # as above
            if tag.floor > newest:  # noqa: PLR1730 - so does `max`
                newest = tag.floor
        return newest

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
            mine = self.hashes
            self.note = (*self.note, *[each for each in part.note if each[0].hash not in mine])
            self._hashes = mine | part.hashes
        if part.older or part.position < self.position:
            older, position, theirs, read = self.older, self.position, part.older, part.position
            for tag in part.hashes:  # hot: a page of articles has forty
                at = theirs.get(tag, read)
                if at < older.get(tag, position):
                    older[tag] = at

    def _at(self, tag: int) -> Position:
        return self.older.get(tag, self.position)


class Entry(Reading):
    """One value. From `expires` on it is loaded anew, and served until `until` meanwhile (monotonic())."""

    __slots__ = ("born", "expires", "floor", "prefix", "reads", "until", "value")

    def __init__(self, value: Any, reading: Reading, expires: float, until: float, prefix: str) -> None:
        self.note = reading.note
        self._hashes = None
        self.position = reading.position
        self.older = reading.older
        self.born = monotonic()
        self.floor = reading.shows()
        self.value = value
        self.expires = expires
        self.until = until
        self.prefix = prefix
        self.reads = 0  # since they were counted last: hot.py

    def alive(self) -> bool:
        """In time and intact."""
        return self.until > monotonic() and self.intact()


Entries = LRUCache[str, Entry] | LFUCache[str, Entry] | FIFOCache[str, Entry] | RRCache[str, Entry]
KINDS: dict[str, type[Any]] = {"lru": LRUCache, "lfu": LFUCache, "fifo": FIFOCache, "random": RRCache}
Recent = LRUCache
"""A dictionary that remembers what was used last: at most so many keys."""

LOOKED_AT = 1000
"""Parts of a value whose size is asked for; the others are taken to be like them."""


def entries(settings: endpoints.Cache) -> Entries:
    """A store of at most so many entries, and bytes if that is said. Larger ones raise OverflowError."""
    kind = KINDS[settings.eviction]
    count, most = max(1, settings.entries_max), settings.bytes_max
    if most is None:
        made: Entries = kind(count)
        return made
    least = -(-most // count)  # as if each took that much, so that there are no more than `count`
    sized: Entries = kind(most, getsizeof=lambda key, entry: max(least, len(key) + size_of(entry)))
    return sized


def size_of(entry: Entry) -> int:
    """About how many bytes it takes."""
    return 300 + 100 * len(entry.note) + _size(entry.value)


def _size(value: Any) -> int:
    size = sys.getsizeof(value, 64)
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, msgspec.Struct):
        parts = [getattr(value, field) for field in value.__struct_fields__]
    else:
        return size
    looked_at = parts[:LOOKED_AT]
    whole = sum(_size(part) for part in looked_at)
    return size + (whole * len(parts) // len(looked_at) if looked_at else 0)

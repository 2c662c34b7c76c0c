"""The entries of this process: what is put in and taken out, and what has had to go."""

from __future__ import annotations

from itertools import islice

from outgrow import endpoints
from outgrow.runtime.cache.hot import Hot
from outgrow.runtime.cache.memory import Entry, entries, size_of

SIZED = 50
"""Entries whose size is asked for where nothing limits it; the others are taken to be like them."""


class Store:
    """`entries`, and `hot.kept`, which no other pushes out: both are looked into for a key."""

    def __init__(self, settings: endpoints.Cache) -> None:
        self.entries = entries(settings)
        self.hot = Hot(self.entries, settings)
        self._sized = settings.bytes_max is not None
        self._inserted = self._removed = 0

    def get(self, key: str) -> Entry | None:
        """What is there, good or not. (`Cache.get` has this written out.)"""
        return self.entries.get(key) or self.hot.kept.get(key)

    def insert(self, key: str, entry: Entry) -> None:
        """Others go for it when there are too many. One that is larger than all that may be is not kept."""
        try:
            before = self.entries.insert(key, entry)
        except OverflowError:
            return
        if before is None:
            self._inserted += 1
        elif before is not entry:
            entry.reads += before.reads
        if key in self.hot.kept:
            self.hot.kept[key] = entry

    def remove(self, key: str) -> None:
        """It is good no longer."""
        entry: Entry | None = self.entries.pop(key, None)
        if entry is not None:
            self._removed += 1
        entry = self.hot.kept.pop(key, entry)
        if entry is not None:
            self.hot.note(key, entry.reads)

    def clear(self) -> None:
        """Nothing is good any longer."""
        self._removed += len(self.entries)
        self.entries.clear()
        self.hot.kept.clear()

    @property
    def evicted(self) -> int:
        """Entries that had to go to make room."""
        return self._inserted - self._removed - len(self.entries)

    @property
    def bytes(self) -> int:
        """About so many bytes they take."""
        if self._sized:
            return int(self.entries.current_size())
        sizes = [size_of(entry) for entry in islice(self.entries.values(), SIZED)]
        return sum(sizes) * len(self.entries) // len(sizes) if sizes else 0

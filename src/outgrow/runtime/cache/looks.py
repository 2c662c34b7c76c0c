"""Looks at what all processes share: one exchange each, and one look at a time for each key.

    get ─► look ─┬─► entry and unknown tags, asked together ─► in its place among what is told: good? ─► Entry
    get ─► look ─┘

This is what a miss of the process costs where another process has the value, so it is a short way: no task,
no timer, and the answer is made into an entry where it arrives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from time import monotonic

from outgrow.runtime.bookmark import Position
from outgrow.runtime.cache.codec import unpack
from outgrow.runtime.cache.load import being_cancelled
from outgrow.runtime.cache.memory import Entry, Reading, Tag
from outgrow.runtime.cache.redis import Gone
from outgrow.runtime.cache.shelf import Found, Noted, Shelf
from outgrow.runtime.cache.shelves import Shelves
from outgrow.runtime.cache.tags import Tags
from outgrow.runtime.cache.wanted import Wanted, prefix_of

Made = Entry | Found | None
"""A Found has parts of whose tags nothing is known yet."""


class Looks:
    """Those under way. `position` is the newest that this process knows."""

    def __init__(self, shelf: Shelf | Shelves, tags: Tags, position: Callable[[], Position]) -> None:
        self._shelf, self._tags, self._position = shelf, tags, position
        self._running: dict[str, asyncio.Future[Made]] = {}

    async def look(self, wanted: Wanted) -> Entry | None:
        """What lies there, if it is good. Callers who look for it at the same time get the same entry."""
        name = wanted.name
        while True:
            looking = self._running.get(name)
            if looking is None or looking.done():
                looking = self._begin(name, wanted)
            try:
                made = await looking
                return await self.whole(wanted, made) if isinstance(made, Found) else made
            except Gone:
                self._running.pop(name, None)
                return None
            except asyncio.CancelledError:
                if being_cancelled() or not looking.cancelled():
                    raise
                # The one that began it was cancelled, which is no business of this caller.

    def lost(self) -> None:
        """No answer comes any more."""
        self._running.clear()

    async def whole(self, wanted: Wanted, found: Found) -> Entry | None:
        """The entry, if none of its tags has changed. Unknown ones are asked for. Raises Gone."""
        held = {tag: self._tags.get(tag) for tag, _ in found.tags}
        unknown = [name for name, tag in held.items() if tag.version < 0]
        if unknown:
            await self._shelf.learn(unknown, self._tags.learn)
        made = self.made(wanted, found, held)
        return made if isinstance(made, Entry) else None

    def made(self, wanted: Wanted, found: Found, held: Mapping[str, Tag]) -> Made:
        """The entry, if none of its tags has changed. Those `held` have been asked for. While nothing
        is known of another one, what was found is returned as it is."""
        assert wanted.codec is not None
        note = []
        for name, version in found.tags:
            tag = held.get(name)
            if tag is None:
                tag = self._tags.get(name)
                if tag.version < 0:
                    return found
            if tag.version != version:
                return None
            note.append((tag, version))
        position = Position(*found.position)
        if position.timeline > self._position().timeline:
            return None  # of a primary of which this process has not heard yet
        try:
            value = wanted.codec.decode(unpack(found.packing, found.value))
        except Exception:  # it is not what its type says, or the type itself refuses it
            return None
        older = {tag: Position(*position) for tag, position in found.older.items()} if found.older else None
        behind = monotonic() - time.time()
        reading, prefix = Reading(tuple(note), position, older), prefix_of(wanted.key)
        return Entry(value, reading, found.expires + behind, found.until + behind, prefix)

    def _begin(self, name: str, wanted: Wanted) -> asyncio.Future[Made]:
        # Tags are known as long as somebody holds them.
        held = {tag: self._tags.get(tag) for tag in wanted.tags}

        def learn(name: str, noted: Noted) -> None:
            tag = held[name]
            tag.version, tag.floor = noted

        def then(found: Found | None) -> Made:
            self._running.pop(name, None)
            return None if found is None else self.made(wanted, found, held)

        unknown = [name for name, tag in held.items() if tag.version < 0]
        looking = self._running[name] = self._shelf.entry(name, unknown, learn, then)
        return looking

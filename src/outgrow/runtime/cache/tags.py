"""What this process knows of tags: their versions, and how far whoever reads for them has to see.

Alone it knows all of it. Where processes share a cache, a version is what that gives (shelf.py), and is not
known (below 0) from when it is gone until it is learnt again. While the shared cache cannot be asked,
versions are this process's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from weakref import WeakValueDictionary

from outgrow.runtime.bookmark import ZERO, Position
from outgrow.runtime.cache.memory import Note, Tag

EVERYTHING = "*"
"""A tag that everything has where processes share a cache."""

INVALIDATED_MAX = 10_000
"""Tags of which it is remembered when they were invalidated last, though no entry has them."""


class Tags:
    """By name. `shares` is whether versions are those of a shared cache."""

    def __init__(self) -> None:
        # A tag is remembered while an entry or a load refers to it, or it is among those invalidated last: a
        # load that begins later may read from a replica that is late, and must be told how far it has to be.
        self.known: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        self._invalidated: dict[str, Tag] = {}
        self.floor = ZERO
        """Of what was invalidated before those."""
        self._own = count(1)
        self.shares = False

    def note(self, names: Sequence[str]) -> Note:
        """The tags as they are now. They are known for as long as this is held."""
        noted = []
        for name in names:
            tag = self.known.get(name) or self._made(name)
            if tag.version < 0 and not self.shares:
                tag.version = next(self._own)
            noted.append((tag, tag.version))
        return tuple(noted)

    def get(self, name: str) -> Tag:
        """One of them, which is known from now on while somebody holds it."""
        return self.known.get(name) or self._made(name)

    def learn(self, name: str, noted: tuple[int, Position]) -> None:
        """Its version and floor are these, says what all processes share."""
        tag = self.get(name)
        tag.version, tag.floor = noted

    def forget(self, names: Iterable[str], position: Position) -> None:
        """They were invalidated there: whoever reads for them has to see that."""
        for name in names:
            tag = self.known.get(name) or self._made(name)
            if self.shares:
                tag.forget()
            else:
                tag.version = next(self._own)
            tag.floor = max(tag.floor, position)
            self._invalidated.pop(name, None)
            self._invalidated[name] = tag
        while len(self._invalidated) > INVALIDATED_MAX:
            oldest = self._invalidated.pop(next(iter(self._invalidated)))
            self.floor = max(self.floor, oldest.floor)

    def unknown(self, names: Iterable[str] | None = None) -> None:
        """What was known of these, or of all, holds no longer."""
        for name in list(self.known) if names is None else names:
            tag = self.known.get(name)
            if tag is not None:
                tag.forget()

    def _made(self, name: str) -> Tag:
        tag = self.known[name] = Tag(name, self.floor)
        if self.shares:
            tag.forget()
        return tag

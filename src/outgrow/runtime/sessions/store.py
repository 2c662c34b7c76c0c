"""Where sessions are kept: the contract of memory.py, database.py and redis.py.

A record changes only by `replace`, which compares its version first. Whoever comes second is told so,
reads again and applies its changes to what is there now (sessions.py), so that no store has to
know what is in a session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

AWAY = "away"
"""Stands in place of the new key in a record that is just being carried to another store."""


class Record(NamedTuple):
    """One session as it is kept. Times are Unix milliseconds; `data` is a JSON object.

    `expires` moves with each use, `created` never. A record with `moved` is all that is left of a
    session that has got another id: the key of that one, for requests that were under way.
    """

    version: int
    created: int
    expires: int
    data: bytes
    moved: str = ""


class Store(Protocol):
    """All methods raise SessionsUnavailable when the store cannot be asked.

    `kept_ms` is how long from now the store has to keep a record; it may forget it then.
    """

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def load(self, key: str) -> Record | None:
        """The record, or None where there is none."""

    async def add(self, key: str, record: Record, kept_ms: int) -> None:
        """Keep a record under a key that nobody has."""

    async def replace(self, key: str, version: int, record: Record, kept_ms: int) -> bool:
        """Keep this one in its place if it still has that version; returns whether it had."""

    async def touch(self, key: str, expires: int, kept_ms: int) -> None:
        """Let it live until then, if it is there. Its version stays."""

    async def remove(self, key: str) -> None:
        """It is gone, if it was there."""

    async def check(self) -> str:
        """What answered, for the deep health check."""


class Movable(Store, Protocol):
    """And what it takes to carry sessions from one store to another (moving.py)."""

    async def freeze(self, key: str) -> None:
        """Nobody changes it here any more, if it is there: `moved` is AWAY, its version one higher."""

    async def put(self, key: str, record: Record, kept_ms: int) -> None:
        """Keep a record, unless one of the same or of a higher version is there."""

    async def discard(self, key: str, version: int) -> None:
        """It is gone, if it is of that version and nobody can change it any more: `moved` is not empty."""

    def keys(self) -> AsyncIterator[str]:
        """Of everything that was there when it began and still is; of what comes meanwhile, perhaps."""

"""Sessions in this process: the fastest store, and gone with it. For one server."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator

from outgrow.runtime.sessions.store import AWAY, Record

SESSIONS_MAX = 100_000
"""Then the one that was not used for longest goes: a stranger must not be able to fill the memory."""


class MemoryStore:
    """A dictionary in the order of last use."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, tuple[Record, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """The sessions stay for as long as the process: another lifespan finds them again."""

    async def load(self, key: str) -> Record | None:
        found = self._records.get(key)
        return found[0] if found is not None else None

    async def add(self, key: str, record: Record, kept_ms: int) -> None:
        """Keep it, and let go of those whose time is over, or of the one not used for longest."""
        self._put(key, record, kept_ms)
        now = time.monotonic()
        while self._records:
            oldest, (_, end) = next(iter(self._records.items()))
            if end > now and len(self._records) <= SESSIONS_MAX:
                break
            del self._records[oldest]

    async def replace(self, key: str, version: int, record: Record, kept_ms: int) -> bool:
        """Between the comparison and the change nothing else runs."""
        found = self._records.get(key)
        if found is None or found[0].moved or found[0].version != version:
            return False
        self._put(key, record, kept_ms)
        return True

    async def touch(self, key: str, expires: int, kept_ms: int) -> None:
        found = self._records.get(key)
        if found is not None and not found[0].moved:
            self._put(key, found[0]._replace(expires=expires), kept_ms)

    async def remove(self, key: str) -> None:
        self._records.pop(key, None)

    async def check(self) -> str:
        return f"{len(self._records)} in memory"

    async def freeze(self, key: str) -> None:
        found = self._records.get(key)
        if found is not None and not found[0].moved:
            record, end = found
            self._records[key] = (record._replace(version=record.version + 1, moved=AWAY), end)

    async def put(self, key: str, record: Record, kept_ms: int) -> None:
        found = self._records.get(key)
        if found is None or found[0].version < record.version:
            self._put(key, record, kept_ms)

    async def discard(self, key: str, version: int) -> None:
        found = self._records.get(key)
        if found is not None and found[0].moved and found[0].version == version:
            del self._records[key]

    async def keys(self) -> AsyncIterator[str]:
        for key in list(self._records):
            yield key

    def _put(self, key: str, record: Record, kept_ms: int) -> None:
        self._records[key] = (record, time.monotonic() + kept_ms / 1000)
        self._records.move_to_end(key)

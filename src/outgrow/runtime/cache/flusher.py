"""Stores what is in the buffer of a WriteBehind: in every process, and one of them at a time.

look: how much, how old ─► old enough, or a batch ─► one transaction: take the oldest, store, COMMIT
   ▲                                                    ├─ no server, a conflict ─► the same again, later
   └──── every `every_s`, sooner when it fills up       ├─ any other error ─► half as many
                                                        └─ one alone, again and again ─► set aside
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import Context
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from outgrow.errors import DatabaseError, SchemaMissing
from outgrow.runtime.bookmark import Position
from outgrow.runtime.events import Events

IDLE_S = 5.0
"""So often at least the buffer is looked at: another process may have died."""

FULL_LOOK_S = 0.05
"""So often while puts wait for room."""

CLOSE_S = 5.0
BACK_OFF_S = (0.05, 5.0)
ATTEMPTS = 5
"""So often a row fails alone before it is set aside."""

REASON_LENGTH_MAX = 2000

logger = logging.getLogger("outgrow.cache")

StoreRows = Callable[[Any, Mapping[str, bytes]], Awaitable[None]]


class Figures(Protocol):
    """See runtime.database.buffer.Figures."""

    @property
    def entries(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def oldest_at(self) -> float: ...
    @property
    def aside(self) -> int: ...


class Buffer(Protocol):
    """Where values wait (runtime.database.buffer.Buffer)."""

    def write(self) -> Any: ...
    def wrote(self, position: Position, tags: Collection[str]) -> None: ...
    async def append(self, tx: Any, of: str, values: Mapping[str, bytes]) -> None: ...
    async def newest(self, tx: Any, of: str, key: str) -> bytes | None: ...
    async def take(self, tx: Any, of: str, count: int) -> Sequence[Any] | None: ...
    async def stored(self, tx: Any, of: str, keys: Collection[str]) -> None: ...
    async def set_aside(self, seq: int, reason: str) -> None: ...
    async def aside(self, of: str) -> Sequence[tuple[str, str]]: ...
    async def try_again(self, of: str) -> int: ...
    async def figures(self, of: str) -> Any: ...


class Pace(NamedTuple):
    """When it is stored, how much at once, and how much may wait."""

    every_s: float
    batch: int
    entries_max: int
    bytes_max: int


class Nothing(NamedTuple):
    """What is in a buffer at which nobody has looked yet."""

    entries: int = 0
    bytes: int = 0
    oldest_at: float = 0.0
    aside: int = 0


class Flusher:
    """Of one strategy. `seen` is what was in the buffer when this process looked last."""

    def __init__(self, name: str, buffer: Buffer, store: StoreRows, events: Events, pace: Pace) -> None:
        self.name = name
        self.seen: Figures = Nothing()
        self._buffer, self._store, self._events, self._pace = buffer, store, events, pace
        self._count = pace.batch
        self._failed: dict[int, int] = {}
        self._since = [0, 0]
        self._woken = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether this process looks and stores by itself."""
        return self._task is not None

    def start(self) -> None:
        """Begin. Does nothing when it has begun."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"outgrow-flusher-{self.name}", context=Context()
            )

    async def close(self) -> None:
        """Store what there is while there is time; what is left is for others."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except Exception as error:  # it is in the buffer, and stays there
            logger.warning("%s: what is left is stored by another process, or later: %r", self.name, error)

    async def flush(self) -> None:
        """Store everything that may be taken. Raises what the store raises."""
        task = asyncio.get_running_loop().create_task(self._flush_all(), context=Context())
        try:
            await asyncio.shield(task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # Room

    def appended(self, entries: int, size: int) -> None:
        """So much was put by this process."""
        self._since[0] += entries
        self._since[1] += size
        self._woken.set()

    @property
    def waiting(self) -> int:
        """So many puts are in the buffer, as far as this process knows."""
        return self.seen.entries + self._since[0]

    def full(self, size: int) -> bool:
        """Whether there is no room for so many bytes. One value always has room in an empty buffer."""
        return self.waiting >= self._pace.entries_max or bool(
            self.waiting and self.seen.bytes + self._since[1] + size > self._pace.bytes_max
        )

    async def freed(self, within_s: float) -> bool:
        """Wait until it has been looked at again; whether that was in time."""
        self._woken.set()
        try:
            async with asyncio.timeout(within_s):
                if self.running:
                    await self._room.wait()
                else:  # a script, say: others may store it
                    await asyncio.sleep(FULL_LOOK_S)
                    await self.look()
        except TimeoutError:
            return False
        return True

    async def look(self) -> None:
        """How much there is now. Raises DatabaseError."""
        entries, size = self._since
        self.seen = await self._buffer.figures(self.name)
        self._since = [self._since[0] - entries, self._since[1] - size]
        room, self._room = self._room, asyncio.Event()
        room.set()

    # Storing

    async def _run(self) -> None:
        pause, back_off = 0.0, BACK_OFF_S[0]
        while True:
            await self._wait(pause)
            try:
                await self.look()
                if self._due() and await self._flush():
                    pause = 0.0
                else:
                    waits = self.seen.entries > self.seen.aside or any(self._since)
                    pause = self._pace.every_s if waits else IDLE_S
                back_off = BACK_OFF_S[0]
            except Exception as error:
                _complain(self.name, error)
                pause = back_off * random.uniform(0.5, 1.0)
                back_off = min(2 * back_off, BACK_OFF_S[1])

    async def _wait(self, pause: float) -> None:
        """So long; after the first put no longer than until it is to be stored."""
        if pause > self._pace.every_s:
            self._woken.clear()
            try:
                async with asyncio.timeout(pause * random.uniform(0.9, 1.1)):
                    await self._woken.wait()
                pause = self._pace.every_s
            except TimeoutError:
                return
        end = time.monotonic() + pause
        while pause > 0:
            await asyncio.sleep(min(pause, FULL_LOOK_S))
            pause = 0.0 if self.full(0) else end - time.monotonic()

    def _due(self) -> bool:
        waiting = self.seen.entries - self.seen.aside
        old = time.time() - self.seen.oldest_at >= 0.8 * self._pace.every_s
        return waiting > 0 and (old or waiting >= self._pace.batch or self.full(0))

    async def _flush_all(self) -> None:
        while await self._flush():
            pass
        await self.look()

    async def _flush(self) -> int:
        """One batch; how many puts that were. Raises what the store raises."""
        started = perf_counter()
        rows: Sequence[Any] = ()
        try:
            async with self._buffer.write() as tx:
                rows = await self._buffer.take(tx, self.name, self._count) or ()
                if not rows:
                    return 0
                newest = {row.key: row.value for row in rows}
                await self._store(tx, newest)
                await self._buffer.stored(tx, self.name, newest)
        except Exception as error:
            self._events.buffer_flushed(self.name, "failed", perf_counter() - started, len(rows), 0)
            if not rows or _passes(error):
                raise
            return await self._blame(rows, error)
        self._events.buffer_flushed(self.name, "stored", perf_counter() - started, len(rows), len(newest))
        self._count = min(2 * self._count, self._pace.batch)
        for row in rows:
            self._failed.pop(row.seq, None)
        return len(rows)

    async def _blame(self, rows: Sequence[Any], error: Exception) -> int:
        """One of them cannot be stored. Which one is found by storing fewer at once."""
        if len(rows) > 1:
            self._count = len(rows) // 2
            return len(rows)
        (row,) = rows
        attempts = self._failed[row.seq] = self._failed.get(row.seq, 0) + 1
        if attempts < ATTEMPTS:
            raise error
        logger.error("%s:%s cannot be stored and is set aside: %r", self.name, row.key, error)
        await self._buffer.set_aside(
            row.seq, f"{type(error).__name__}: {error}"[:REASON_LENGTH_MAX].replace("\0", "")
        )
        self._events.buffer_flushed(self.name, "aside", 0.0, 1, 0)
        del self._failed[row.seq]
        self._count = self._pace.batch
        return 1


def _passes(error: Exception) -> bool:
    """Whether it is not the values' fault."""
    return getattr(error, "retryable", False) is True or isinstance(error, OSError | SchemaMissing)


def _complain(name: str, error: Exception) -> None:
    known = isinstance(error, DatabaseError)
    logger.warning("%s: not stored yet: %s", name, error, exc_info=None if known else error)

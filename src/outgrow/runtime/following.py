"""Follows what changes in the database, whoever changes it, and has the cache forget what depends on it.

    PostgreSQL's log ─► rows ─► tags (cache/changes.py) ─► seen by every new read? ─► shared cache ─► confirm

Every process of the application may do that, and one of them does: the server gives a slot to one reader. The
others look once a second whether there is one. A reader that ends at any point loses nothing: what was not
confirmed is told again to the next one. Where the slot does not go on from where the cache was left (it is
new, the server is another, the cache began anew), nobody knows what was missed: everything is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from time import monotonic
from typing import TYPE_CHECKING

from sqlalchemy import text

from outgrow.endpoints import CHANGES
from outgrow.errors import OutgrowError, Unavailable
from outgrow.runtime.bookmark import Position
from outgrow.runtime.cache.changes import Batch, Collector, Declared
from outgrow.runtime.cache.tags import EVERYTHING
from outgrow.runtime.database import marks
from outgrow.runtime.database.pgoutput import Begin, Change, Commit, Message, Said, Truncate
from outgrow.runtime.events import Events

if TYPE_CHECKING:
    from outgrow.runtime.cache.shared import Shared
    from outgrow.runtime.database.database import Database
    from outgrow.runtime.database.postgres_changes import Alive, Begun, Changes

LOOK_S = 1.0
RETRY_MAX_S = 15.0
TIDY_S = 30.0
TELL_AGAIN_S = 0.1
TELL_WITHIN_S = 3.0
"""A shared cache that is away for longer is not waited for with the slot in hand: a server that is being
stopped would wait as well, until everything is confirmed."""

SEEN_AGAIN_S = 0.002
SEEN_AGAIN_MAX_S = 0.05

_SLOT = text(
    "SELECT active, coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), "
    "confirmed_flush_lsn), 0)::bigint AS behind FROM pg_catalog.pg_replication_slots WHERE slot_name = :slot"
)
_SNAPSHOT = text("SELECT pg_catalog.pg_current_snapshot()::text AS snapshot")

logger = logging.getLogger("outgrow.cache")


class Following:
    """Of one process. `url` names the role that may read the log, at the database itself."""

    def __init__(
        self,
        url: str,
        password: str | None,
        application: str,
        *,
        timeline: int,
        database: Database,
        shared: Shared,
        declared: Declared,
        events: Events,
    ) -> None:
        self._url, self._password, self._slot = url, password, application + CHANGES
        self._timeline = timeline
        self._db, self._shared, self._declared, self._events = database, shared, declared, events
        self._watching: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._trouble = ""
        self._retry_s = LOOK_S
        self.reads = False
        self.active = False
        self.behind = 0

    def begin(self) -> None:
        """From now on, in the background."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Let another one read."""
        tasks = [task for task in (self._watching, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except OutgrowError as error:
                self._tell_trouble(error)
            except Exception:
                logger.exception("the slot %s cannot be looked at", self._slot)
            if not self.active and self._shared.up and (self._reading is None or self._reading.done()):
                self._reading = asyncio.get_running_loop().create_task(self._try_to_read())
            await asyncio.sleep(LOOK_S * random.uniform(0.75, 1.25))

    async def _look(self) -> None:
        async with self._db.read(level="strong") as tx:
            found = await tx.one(_SLOT, slot=self._slot)
        self.active, self.behind = (found.active, found.behind) if found is not None else (False, 0)

    async def _try_to_read(self) -> None:
        from outgrow.runtime.database.postgres_changes import Changes, SlotBusy

        changes = Changes(
            self._url, self._password, self._slot, base=self._timeline, wanted=self._declared.wants
        )
        try:
            await self._read(changes)
        except SlotBusy:
            return
        except OutgrowError as error:
            self._tell_trouble(error)
            await asyncio.sleep(self._retry_s * random.uniform(0.5, 1.0))
            self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
        except Exception:  # whatever it is: a cache that nobody tells of changes is wrong for ever
            logger.exception("changes cannot be read")
            await asyncio.sleep(LOOK_S)
        finally:
            self.reads = False
            await changes.close()

    async def _read(self, changes: Changes) -> None:
        begun = await changes.open()
        self.reads, self._trouble, self._retry_s = True, "", LOOK_S
        missing = sorted(set(self._declared.tables) - begun.tables)
        if missing:
            logger.warning(
                "no changes of %s are published: name them in cache.follow_changes", ", ".join(missing)
            )
        await self._continue(begun)
        reader = Reader(changes, begun, self._db, self._shared, self._declared, self._events)
        await first_of(reader.collect(), reader.tell(), self._tidy())

    async def _tidy(self) -> None:
        from outgrow.runtime.database.postgres_changes import drop_leftovers

        while True:
            await asyncio.sleep(TIDY_S)
            await drop_leftovers(self._url, self._password, self._slot)

    async def _continue(self, begun: Begun) -> None:
        """Where this is not where the cache was left, everything is forgotten."""
        if goes_on(await self._shared.followed(), begun.system, begun.position):
            return
        logger.info("the cache forgets everything: what has changed before now was not followed")
        await self._shared.invalidate([EVERYTHING], await self._db.written())

    def _tell_trouble(self, error: OutgrowError) -> None:
        if error.message != self._trouble:
            self._trouble = error.message
            logger.warning("changes of the database are not followed here: %s", error.message)


class Reader:
    """The one that reads: two tasks, so that what comes while the cache is told is told together."""

    def __init__(
        self,
        changes: Changes,
        begun: Begun,
        database: Database,
        shared: Shared,
        declared: Declared,
        events: Events,
    ) -> None:
        self._changes, self._begun = changes, begun
        self._db, self._shared, self._events = database, shared, events
        self._collector = Collector(declared, events.cache_change_failed)
        self._come, self._room = asyncio.Event(), asyncio.Event()

    async def collect(self) -> None:
        """What comes. Raises Unavailable when the connection is lost."""
        async for message in self._changes.messages():
            self._hear(message)
            self._changes.skips = self._collector.everything
            while self._collector.batch.full:
                self._room.clear()
                await self._room.wait()

    def _hear(self, message: Message | Alive) -> None:
        collector = self._collector
        if isinstance(message, Change):
            collector.row(*message)
        elif isinstance(message, Begin):
            collector.begin(message.xid)
        elif isinstance(message, Said):
            if message.prefix == marks.PREFIX:
                collector.announced(marks.read(message.content))
        elif isinstance(message, Truncate):
            collector.truncated()
        elif isinstance(message, Commit):
            collector.commit(message.end, message.at)
            self._come.set()
        else:
            collector.reached(message.end)
            self._come.set()

    async def tell(self) -> None:
        """What has come. Raises Unavailable when nobody takes it."""
        told = 0
        while True:
            await self._come.wait()
            self._come.clear()
            batch = self._collector.take()
            self._room.set()
            if batch.tags:
                await self._seen(batch.transactions)
                await self._forget(batch)
            if batch.end > told:  # else nothing was written
                told, place = batch.end, noted(self._begun.system, self._position(batch.end))
                await self._surely(lambda place=place: self._shared.follow(place))  # type: ignore[misc]
            self._changes.confirm(batch.end)

    async def _forget(self, batch: Batch) -> None:
        tags, position = list(batch.tags), self._position(batch.committed)
        await self._surely(lambda: self._shared.invalidate(tags, position))
        self._events.cache_followed(len(tags), max(0.0, time.time() - batch.since))

    async def _surely(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Nothing is confirmed before it. Raises Unavailable when it takes too long."""
        deadline = monotonic() + TELL_WITHIN_S
        while True:
            try:
                await tell()
                return
            except Unavailable:
                if monotonic() > deadline:
                    raise
                await asyncio.sleep(TELL_AGAIN_S)

    async def _seen(self, transactions: Collection[int]) -> None:
        """Until every new read on the primary sees them. The log has a commit a moment before readers do, or
        much longer where it waits for a replica: what is loaded meanwhile shows what was before it."""
        wait_s = SEEN_AGAIN_S
        while True:
            async with self._db.read(level="strong") as tx:
                snapshot = await tx.value(_SNAPSHOT)
            transactions = unseen(snapshot, transactions)
            if not transactions:
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, SEEN_AGAIN_MAX_S)

    def _position(self, end: int) -> Position:
        return Position(self._begun.position.timeline, end)


async def first_of(*works: Coroutine[None, None, None]) -> None:
    """Until one of them raises; then all end."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def noted(system: str, position: Position) -> str:
    """A place in the history of a server, as the shared cache keeps it."""
    return f"{system} {position.timeline} {position.offset}"


def goes_on(note: str, system: str, position: Position) -> bool:
    """Whether a reader that begins at this position misses nothing after the place that was noted. That is
    noted before the server is told, so a slot that is further was moved by somebody else."""
    if not note:
        return False
    its_system, timeline, offset = note.split(" ")
    return (its_system, int(timeline)) == (system, position.timeline) and position.offset <= int(offset)


def unseen(snapshot: str, transactions: Collection[int]) -> set[int]:
    """Those of the transactions, by their 32 bits, that this snapshot does not show: "xmin:xmax:xip,..."."""
    _, first_unseen, under_way = snapshot.split(":")
    hidden = {int(each) % (1 << 32) for each in under_way.split(",") if each}
    after = int(first_unseen)
    return {each for each in transactions if each in hidden or (each - after) % (1 << 32) < 1 << 31}

"""The buffer of write-behind: what is acknowledged and not stored yet, one row a put; table outgrow_buffer.

    append ─► rows of a key, in their order ─take─► (gone, in the transaction that stores them)
                 └ newest: what a reader is shown       └ set aside: kept with an error, taken no more

What is taken is deleted by the transaction that stores it, so a value is in the buffer or stored, never both
or neither, whoever dies when. A row is appended, not updated: puts of a hot key do not wait for each other.

In which order? SQLite has one writer, so by number. On PostgreSQL a row with a lower number may be committed
later, when one with a higher number has been taken already. So a row's `turn` is its transaction's id, and
only rows are taken whose transaction is older than every one still under way: what comes to light later is
newer than all that was taken before. So a write transaction that stays open holds up what is put after it.
Another database counts its transactions anew; the `era` rises when the database moves.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)

from outgrow.runtime.bookmark import Position
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.schema import buffer
from outgrow.runtime.database.unit import Read, Unit
from outgrow.runtime.database.write import Write

_KEYS: BindParameter[str] = bindparam("keys", expanding=True)
_OF = buffer.c.strategy == bindparam("of")
_WAITING = and_(_OF, buffer.c.error.is_(None))
_ASIDE = and_(_OF, buffer.c.error.is_not(None))
_ORDER = (buffer.c.era, buffer.c.turn, buffer.c.seq)

_NEWEST = (
    select(buffer.c.value)
    .where(_OF, buffer.c.key == bindparam("wanted"))
    .order_by(*(column.desc() for column in _ORDER))
    .limit(1)
)
_FIGURES = select(
    func.count().label("entries"),
    func.coalesce(func.sum(func.length(buffer.c.value)), literal_column("0")).label("bytes"),
    func.min(case((buffer.c.error.is_(None), buffer.c.created_at))).label("oldest"),
    func.count(buffer.c.error).label("aside"),
).where(_OF)
_SET_ASIDE = update(buffer).where(buffer.c.seq == bindparam("row")).values(error=bindparam("reason"))
_SHOW_ASIDE = select(buffer.c.key, buffer.c.error).where(_ASIDE).order_by(*_ORDER)
_AGAIN = update(buffer).where(_ASIDE).values(error=null())
_SUPERSEDED = delete(buffer).where(_ASIDE, buffer.c.key.in_(_KEYS))
_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("number", type_=BigInteger)))


def _number(xid: Any) -> Any:
    return cast(cast(xid, Text), BigInteger)


@functools.cache
def _append(engine: str) -> Any:
    if engine == "sqlite":
        return insert(buffer)
    return insert(buffer).values(turn=_number(func.pg_current_xact_id()))


@functools.cache
def _take(engine: str) -> Any:
    waiting = _WAITING
    if engine != "sqlite":
        now = func.pg_current_snapshot()
        settled = or_(
            buffer.c.era < bindparam("now"),
            buffer.c.turn < select(_number(func.pg_snapshot_xmin(now))).scalar_subquery(),
            # One that is yet to come can only be of a copy that somebody has put back.
            buffer.c.turn >= select(_number(func.pg_snapshot_xmax(now))).scalar_subquery(),
        )
        waiting = and_(waiting, settled)
    first = select(buffer.c.seq).where(waiting).order_by(*_ORDER).limit(bindparam("count"))
    return (
        delete(buffer)
        .where(buffer.c.seq.in_(first))
        .returning(buffer.c.era, buffer.c.turn, buffer.c.seq, buffer.c.key, buffer.c.value)
    )


class Taken(NamedTuple):
    """A row that this transaction takes."""

    era: int
    turn: int
    seq: int
    key: str
    value: bytes


class Figures(NamedTuple):
    """What a strategy has in the buffer. `oldest_at` is when the oldest was put (Unix time), or 0."""

    entries: int = 0
    bytes: int = 0
    oldest_at: float = 0.0
    aside: int = 0


class Buffer:
    """All methods raise DatabaseError when the database cannot be asked. `of` is a strategy's name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> Read:
        """A read block, for this caller."""
        return self._database.read()

    def write(self) -> Write:
        """A write block."""
        return self._database.write()

    def wrote(self, position: Position, tags: Iterable[str]) -> None:
        """The caller has written these, in a transaction that it shared with others."""
        self._database.joined(position, tags)

    async def append(self, tx: Write, of: str, values: Mapping[str, bytes]) -> None:
        """Durable when the transaction has committed."""
        every = {"strategy": of, "era": self._database.era, "created_at": int(time.time() * 1000)}
        rows = [{**every, "key": key, "value": value} for key, value in values.items()]
        await tx.many(_append(self._database.engine), rows)

    async def newest(self, tx: Unit, of: str, key: str) -> bytes | None:
        """What was put last, or None when the buffer has nothing of this key."""
        found: bytes | None = await tx.value(_NEWEST, of=of, wanted=key)
        return found

    async def take(self, tx: Write, of: str, count: int) -> list[Taken] | None:
        """The oldest rows, in their order, deleted by this transaction; None while another one takes.

        Nobody else takes any before it has ended: order is kept by that, and by nothing else.
        """
        engine = self._database.engine
        if engine != "sqlite" and not await tx.value(_LOCK, number=_lock_of(of)):
            return None
        rows = await tx.all(
            _take(engine), of=of, count=count, **({} if engine == "sqlite" else {"now": self._database.era})
        )
        return sorted(Taken(row.era, row.turn, row.seq, row.key, row.value) for row in rows)

    async def stored(self, tx: Write, of: str, keys: Collection[str]) -> None:
        """What was set aside of these is older than what this transaction has stored: it is of no use now."""
        await tx.execute(_SUPERSEDED, of=of, keys=list(keys))

    async def set_aside(self, seq: int, reason: str) -> None:
        """This row cannot be stored: it is kept, and not taken any more."""
        async with self.write() as tx:
            await tx.execute(_SET_ASIDE, row=seq, reason=reason)

    async def aside(self, of: str) -> Sequence[tuple[str, str]]:
        """What could not be stored, oldest first: keys and errors."""
        async with self._database.read(level="strong") as tx:
            return [(row.key, row.error) for row in await tx.all(_SHOW_ASIDE, of=of)]

    async def try_again(self, of: str) -> int:
        """What was set aside is to be stored once more; returns how many rows that is."""
        async with self.write() as tx:
            return await tx.execute(_AGAIN, of=of)

    async def figures(self, of: str) -> Figures:
        """How much there is, as of now."""
        async with self._database.read(level="strong") as tx:
            row = await tx.one(_FIGURES, of=of)
        return Figures(row.entries, int(row.bytes), (row.oldest or 0) / 1000, row.aside) if row else Figures()


def _lock_of(strategy: str) -> int:
    digest = blake2b(f"outgrow:buffer:{strategy}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)

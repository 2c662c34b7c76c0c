"""The outbox: messages that were committed with the rows they speak of, waiting to be worked on.

At these stages the outbox is the queue itself: workers claim from it. A broker, later, is fed by a
relay that claims in the same way.

    staged with a transaction ─► ready ─claim─► leased ─► acknowledged (gone)
                                   ▲               ├─► released, to be tried again later
                                   └── lease over ─┘─► buried (state "dead", kept with its error)

A claim is a lease: a worker that dies stops extending it, and its messages are ready again. Several
workers claim at once without meeting: SKIP LOCKED on PostgreSQL, one writer on SQLite. Times are the
claiming process's clock; leases are long against the skew between machines.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, and_, bindparam, delete, func, literal_column, null, or_, select, update

from outgrow.runtime.database.database import Database
from outgrow.runtime.database.schema import outbox

_IDS: BindParameter[int] = bindparam("ids", expanding=True)
_FREE = and_(
    outbox.c.topic == bindparam("topic_wanted"),
    # Written out, since a partial index is not used for a parameter.
    outbox.c.state == literal_column("'ready'"),
    or_(outbox.c.leased_until.is_(None), outbox.c.leased_until < bindparam("now")),
)
_HELD = and_(outbox.c.id.in_(_IDS), outbox.c.lease == bindparam("held"))
_NEXT = select(func.min(outbox.c.available_at)).where(_FREE)
# A CTE, so that PostgreSQL takes the locks once; a subquery may be run again for each row.
_DUE = (
    select(outbox.c.id)
    .where(_FREE, outbox.c.available_at <= bindparam("now"))
    .order_by(outbox.c.available_at, outbox.c.id)
    .limit(bindparam("count"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_CLAIM = (
    update(outbox)
    .where(outbox.c.id.in_(select(_DUE.c.id)))
    .values(
        leased_until=bindparam("until"),
        lease=bindparam("new_lease"),
        attempts=outbox.c.attempts + 1,
        # From now on the task may have read what the next message with this key is about.
        dedupe=null(),
    )
    .returning(outbox.c.id, outbox.c.body, outbox.c.headers, outbox.c.attempts)
)
_EXTEND = update(outbox).where(_HELD).values(leased_until=bindparam("until"))
_ACKNOWLEDGE = delete(outbox).where(_HELD)
_RELEASE = (
    update(outbox)
    .where(_HELD)
    .values(leased_until=null(), lease=null(), available_at=bindparam("at"), error=bindparam("reason"))
)
_GIVE_BACK = (
    update(outbox).where(_HELD).values(leased_until=null(), lease=null(), attempts=outbox.c.attempts - 1)
)
_BURY = (
    update(outbox)
    .where(_HELD)
    .values(state="dead", leased_until=null(), lease=null(), error=bindparam("reason"))
)


class Claimed(NamedTuple):
    """A message that this worker alone may work on, until its lease is over. `attempts` counts this one."""

    id: int
    body: bytes
    headers: str
    attempts: int


class Outbox:
    """The table outgrow_outbox. All methods raise DatabaseError when the database cannot be asked."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def due_in(self, topic: str) -> float | None:
        """Seconds until the next message may be claimed (0: now), or None when none waits. Only reads."""
        now = _now()
        async with self.database.read(level="strong") as tx:
            first = await tx.value(_NEXT, topic_wanted=topic, now=now)
        return None if first is None else max(0.0, (first - now) / 1000)

    async def claim(self, topic: str, count: int, lease: str, lease_s: float) -> list[Claimed]:
        """Up to `count` messages, oldest first, leased to this worker."""
        now = _now()
        async with self.database.write() as tx:
            rows = await tx.all(
                _CLAIM,
                topic_wanted=topic,
                now=now,
                count=count,
                until=now + int(lease_s * 1000),
                new_lease=lease,
            )
        return sorted((Claimed(row.id, row.body, row.headers, row.attempts) for row in rows), key=_by_id)

    async def extend(self, ids: Collection[int], lease: str, lease_s: float) -> int:
        """Hold them longer; returns how many this worker still holds."""
        return await self._change(_EXTEND, ids, lease, until=_now() + int(lease_s * 1000))

    async def acknowledge(self, ids: Collection[int], lease: str) -> int:
        """They are done and gone; returns how many this worker still held."""
        return await self._change(_ACKNOWLEDGE, ids, lease)

    async def release(self, identifier: int, lease: str, *, delay_s: float, reason: str) -> int:
        """It failed: to be tried again, not before `delay_s` have passed."""
        return await self._change(
            _RELEASE, [identifier], lease, at=_now() + int(delay_s * 1000), reason=reason
        )

    async def give_back(self, ids: Collection[int], lease: str) -> int:
        """Their worker ends before they do: ready at once, and this does not count as an attempt."""
        return await self._change(_GIVE_BACK, ids, lease)

    async def bury(self, identifier: int, lease: str, *, reason: str) -> int:
        """It failed for good: kept, with the reason, and never claimed again."""
        return await self._change(_BURY, [identifier], lease, reason=reason)

    async def _change(self, statement: Any, ids: Collection[int], lease: str, **parameters: Any) -> int:
        async with self.database.write() as tx:
            return await tx.execute(statement, ids=list(ids), held=lease, **parameters)


def _now() -> int:
    return int(time.time() * 1000)


def _by_id(message: Claimed) -> int:
    return message.id

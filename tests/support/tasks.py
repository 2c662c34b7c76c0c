"""A queue on a database, with a brisk worker: for tests, and as a process of its own to be killed.

python -m tests.support.tasks URL        works until it is killed
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from outgrow import endpoints
from outgrow.endpoints import Node, Shard
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.outbox import Outbox
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids
from outgrow.runtime.queue import Queue
from outgrow.runtime.queue.worker import Pace
from outgrow.runtime.scope import Scope

BRISK = Pace(lease_s=1.0, poll_s=(0.05, 0.2), back_off_s=(0.02, 0.1), close_s=1.0)

ran = sa.Table(
    "ran",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("moment", sa.Text, nullable=False),
)
CREATE_RAN = sa.text(
    "CREATE TABLE ran (id bigint PRIMARY KEY, number integer NOT NULL, moment text NOT NULL)"
)
NOTE = sa.insert(ran)


def open_database(url: str, events: Events, headers: Callable[[], str] = lambda: "{}") -> Database:
    """The database at `url`, not opened yet."""
    engine: Any = "sqlite" if url.startswith("sqlite") else "postgres"
    settings = endpoints.Database(
        engine=engine, shards=(Shard("0", (Node("db", url),)),), checkout_timeout_s=10.0
    )
    return Database(settings, passwords={}, events=events, ids=Ids(), headers=headers)


def open_queue(
    db: Database,
    events: Events,
    *,
    workers: int = 4,
    pace: Pace = BRISK,
    adopt: Callable[[dict[str, str]], Scope] = lambda headers: Scope(),
) -> Queue:
    """A queue in the database, not started yet."""
    return Queue(Outbox(db), endpoints.Queue(workers=workers), events, adopt=adopt, pace=pace)


def declare_note(queue: Queue, db: Database, pause_s: float) -> Any:
    """A task that notes in the table `ran` when it begins and when it ends."""
    ids = Ids()

    @queue.task(name="note", attempts=50)
    async def note(number: int) -> None:
        for moment in ("begin", "end"):
            async with db.write() as tx:
                await tx.execute(NOTE, id=ids.next(), number=number, moment=moment)
            await asyncio.sleep(pause_s)

    return note


async def work(url: str) -> None:
    """Work for ever, and tell that it has begun."""
    events = Events()
    db = open_database(url, events)
    await db.open()
    queue = open_queue(db, events)
    declare_note(queue, db, 0.02)
    queue.start()
    print("ready", time.time(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))

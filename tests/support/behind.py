"""Write-behind on a real database, quick; and as a process of its own to be killed.

python -m tests.support.behind URL NUMBER [STEP]    puts, and tells what is acknowledged, until it is killed

It kills itself at STEP: "appended" (or something else was committed, and nobody told), "taken", "stored" or
"committed".
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from outgrow import endpoints
from outgrow.endpoints import Node, Shard
from outgrow.runtime.application import Outgrow
from outgrow.runtime.cache import flusher
from outgrow.runtime.cache.behind import WriteBehind

COUNTS = sa.table("counts", sa.column("name", sa.Text), sa.column("n", sa.Integer))
CREATE = sa.text("CREATE TABLE counts (name text PRIMARY KEY, n integer NOT NULL CHECK (n >= 0))")
GET = sa.select(COUNTS.c.n).where(COUNTS.c.name == sa.bindparam("wanted"))
STORE = sa.text(
    "INSERT INTO counts (name, n) VALUES (:name, :n) ON CONFLICT (name) DO UPDATE SET n = excluded.n"
)
ALL = sa.select(COUNTS.c.name, COUNTS.c.n)
KEYS = 5
SETTLED = 5
"""After so many rounds it dies."""


def outgrow(
    url: str, *, cache: endpoints.Cache | None = None, passwords: Mapping[str, str] | None = None
) -> Outgrow:
    """An application on this database, not opened yet."""
    engine: Any = "sqlite" if url.startswith("sqlite") else "postgres"
    database = endpoints.Database(
        engine=engine, shards=(Shard("main", (Node("db", url),)),), checkout_timeout_s=10.0
    )
    document = endpoints.Endpoints(
        application="test",
        stage="single-server",
        database=database,
        cache=cache or endpoints.Cache(),
        queue=endpoints.Queue(workers=0),
    )
    return Outgrow(document, endpoints.Secrets(application="ab" * 32, passwords=dict(passwords or {})))


async def load(tx: Any, name: str) -> int:
    """What the database has."""
    found: int | None = await tx.value(GET, wanted=name)
    return found or 0


async def store(tx: Any, values: Mapping[str, int]) -> None:
    """Refused by the database below zero."""
    await tx.many(STORE, [{"name": name, "n": n} for name, n in values.items()])


def counts(og: Outgrow, **options: Any) -> WriteBehind[str, int]:
    """The strategy, stored often."""
    return WriteBehind(og, "counts", load, **{"store": store, "every": 0.02, **options})


def die() -> None:
    """SIGKILL to itself."""
    os.kill(os.getpid(), signal.SIGKILL)


async def work(url: str, number: int, step: str) -> None:
    """Each key's values rise; a key belongs to one process."""
    flusher.IDLE_S = 0.1
    og = outgrow(url)
    n = 0

    def at(here: str) -> None:
        if step == here and n > SETTLED:
            die()

    async def deadly(tx: Any, values: Mapping[str, int]) -> None:
        at("taken")
        await store(tx, values)
        at("stored")
        tx.after_commit(lambda position: at("committed"))

    async with og:
        strategy = counts(og, store=deadly, batch=7)
        og.flushers.start()
        og.events.transaction_finished.subscribe(lambda *_: at("appended"))
        while True:
            n += 1
            for key in range(KEYS):
                await strategy.put(f"{number}.{key}", n)
            print(n, flush=True)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))

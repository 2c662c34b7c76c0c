"""The cache before a real database: writers and readers at full speed, and nobody is served the past."""

import asyncio
import random

import pytest
import sqlalchemy as sa

from outgrow import endpoints
from outgrow.runtime import scope as request
from outgrow.runtime.cache import Cache
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope
from tests.support.tasks import open_database

ROWS = 5
counters = sa.table("counters", sa.column("id", sa.Integer), sa.column("n", sa.Integer))
GET = sa.select(counters.c.n).where(counters.c.id == sa.bindparam("row"))
ADD = sa.update(counters).where(counters.c.id == sa.bindparam("row")).values(n=counters.c.n + 1)
PUT = sa.insert(counters)


@pytest.mark.parametrize("sessions", [False, True])
async def test_a_reader_sees_every_write_acknowledged_before_it_asked(
    database_url: str, sessions: bool
) -> None:
    random.seed(7)
    events = Events()
    outcomes: list[str] = []
    events.cache_read.subscribe(lambda prefix, outcome: outcomes.append(outcome))
    await migrate(database_url, None)
    db = open_database(database_url, events)
    await db.open()
    cache = Cache(endpoints.Cache(), events, position=lambda: db.position)
    async with db.write() as tx:
        await tx.execute(sa.text("CREATE TABLE counters (id integer PRIMARY KEY, n integer NOT NULL)"))
        await tx.many(PUT, [{"id": row, "n": 0} for row in range(ROWS)])
    acknowledged = [0] * ROWS
    committing = [0] * ROWS
    stop = False

    async def page(row: int) -> int:
        async def load() -> int:
            async with db.read() as tx:
                n: int = await tx.value(GET, row=row)
            await asyncio.sleep(random.choice([0, 0, 0.002]))  # a slow reader
            return n

        return await cache.get(f"page:{row}", load, tags=[f"row:{row}"])

    async def write() -> None:
        while not stop:
            row = random.randrange(ROWS)
            if sessions:
                request.current.set(Scope())
            roll_back = random.random() < 0.2
            try:
                async with db.write() as tx:
                    cache.invalidate(f"row:{row}")
                    await tx.execute(ADD, row=row)
                    if roll_back:
                        raise ZeroDivisionError
                    committing[row] += 1
            except ZeroDivisionError:
                continue
            acknowledged[row] += 1
            assert await page(row) >= 1
            await asyncio.sleep(random.choice([0, 0.001, 0.005]))

    async def read() -> None:
        while not stop:
            row = random.randrange(ROWS)
            least = acknowledged[row]
            seen = await page(row)
            assert least <= seen <= committing[row]
            await asyncio.sleep(0)

    work = [asyncio.create_task(write()) for _ in range(3)] + [asyncio.create_task(read()) for _ in range(6)]
    for _ in range(60):
        done, _ = await asyncio.wait(work, timeout=0.5, return_when=asyncio.FIRST_EXCEPTION)
        if done or (sum(acknowledged) > 50 and outcomes.count("hit") > 100):
            break
    stop = True
    await asyncio.gather(*work)
    assert sum(acknowledged) > 50 and outcomes.count("hit") > 100
    for row in range(ROWS):
        assert await page(row) == acknowledged[row]
    await db.close()


async def test_a_cancelled_writers_commit_still_invalidates(database_url: str) -> None:
    """COMMIT is under way when the writer goes away: if it takes place, so does what hangs on it."""
    events = Events()
    await migrate(database_url, None)
    db = open_database(database_url, events)
    await db.open()
    cache = Cache(endpoints.Cache(), events, position=lambda: db.position)
    async with db.write() as tx:
        await tx.execute(sa.text("CREATE TABLE counters (id integer PRIMARY KEY, n integer NOT NULL)"))
        await tx.execute(PUT, id=0, n=0)

    async def load() -> int:
        async with db.read() as tx:
            n: int = await tx.value(GET, row=0)
            return n

    async def write() -> None:
        async with db.write() as tx:
            cache.invalidate("row")
            await tx.execute(ADD, row=0)

    for delay_ms in range(30):
        await cache.get("page", load, tags=["row"])
        writer = asyncio.create_task(write())
        await asyncio.sleep(delay_ms / 10_000)
        writer.cancel()
        await asyncio.wait([writer])
        async with db.write():
            pass  # in turn: whatever the cancelled writer had begun is over
        await asyncio.sleep(0.01)
        assert await cache.get("page", load, tags=["row"]) == await load()
    await db.close()

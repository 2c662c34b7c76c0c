"""kill -9 of a worker with tasks under way, and of its database: no acknowledged message is lost."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outgrow.errors import Unavailable
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.database.outbox import Outbox
from outgrow.runtime.events import Events
from tests.support.postgres import PostgresServer
from tests.support.tasks import BRISK, CREATE_RAN, declare_note, open_database, open_queue

ROOT = Path(__file__).parents[2]
BEGUN = sa.text("SELECT count(*) FROM ran WHERE moment = 'begin'")
RAN = sa.text("SELECT number, moment FROM ran")
LEASED_UNTIL = sa.text("SELECT max(leased_until) FROM outgrow_outbox")
MESSAGES = 40


@contextlib.asynccontextmanager
async def a_worker(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.tasks", url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"ready")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def open_migrated(url: str, events: Events) -> Database:
    await migrate(url, None)
    db = open_database(url, events)
    await db.open()
    async with db.write() as tx:
        await tx.execute(CREATE_RAN)
    return db


async def value(db: Database, statement: sa.TextClause) -> Any:
    async with db.read() as tx:
        return await tx.value(statement)


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_killed_workers_messages_are_delivered_again_when_its_lease_is_over(
    database_url: str,
) -> None:
    events = Events()
    db = await open_migrated(database_url, events)
    queue = open_queue(db, events)
    note = declare_note(queue, db, 0.0)
    async with db.write():
        for number in range(MESSAGES):
            queue.enqueue(note, number)

    for begun in (3, 10):  # two workers die, each with tasks under way
        async with a_worker(database_url) as process:
            await until(lambda begun=begun: reached(db, begun))  # type: ignore[misc]
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
    held = await value(db, LEASED_UNTIL)
    assert held is not None
    left = await Outbox(db).claim("tasks", 1000, "somebody else", BRISK.lease_s)
    assert len(left) < MESSAGES  # what the dead hold is not handed out before its time
    await Outbox(db).give_back([message.id for message in left], "somebody else")

    async with a_worker(database_url):
        await until(lambda: empty(db))
    async with db.read() as tx:
        rows = [(row.number, row.moment) for row in await tx.all(RAN)]
    assert {number for number, moment in rows if moment == "end"} == set(range(MESSAGES))
    assert sum(moment == "begin" for _, moment in rows) > MESSAGES  # some had begun before and ran again
    await db.close()


async def reached(db: Database, begun: int) -> bool:
    return bool(await value(db, BEGUN) >= begun)


async def empty(db: Database) -> bool:
    return not await value(db, sa.text("SELECT count(*) FROM outgrow_outbox"))


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=True)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()


async def test_the_worker_outlives_its_database(own_server: PostgresServer) -> None:
    events = Events()
    db = await open_migrated(own_server.url(), events)
    queue = open_queue(db, events)
    note = declare_note(queue, db, 0.005)
    queue.start()
    acknowledged: set[int] = set()
    stop = asyncio.Event()

    async def send() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with contextlib.suppress(Unavailable):
                await queue.send(note, number)
                acknowledged.add(number)
            await asyncio.sleep(0.002)

    sending = asyncio.create_task(send())
    await until(lambda: many(acknowledged, 50))
    before = len(acknowledged)
    own_server.kill()
    await asyncio.to_thread(own_server.start)
    await until(lambda: many(acknowledged, before + 50))
    stop.set()
    await sending
    await until(lambda: empty(db))
    async with db.read() as tx:
        ended = {row.number for row in await tx.all(RAN) if row.moment == "end"}
    assert acknowledged <= ended
    await queue.close()
    await db.close()


async def many(numbers: set[int], count: int) -> bool:
    return len(numbers) >= count

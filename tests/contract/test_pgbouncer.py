"""Behind a pooler that has far fewer connections than there are blocks at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from outgrow import errors
from outgrow.runtime.bookmark import ZERO
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from tests.contract.test_database import ADD, COUNT, GET, NAMES, RENAME, Thing, create_things, open_database
from tests.support.pgbouncer import Pooler
from tests.support.postgres import PostgresServer

CONNECTIONS = 2
WHO = sa.text("SELECT pg_backend_pid()")


@pytest.fixture
async def processes(postgres_server: PostgresServer) -> AsyncIterator[list[Database]]:
    """Two, as it were: each with a pool of 12, and 2 connections for both together."""
    pooler, opened = Pooler(postgres_server, CONNECTIONS), list[Database]()
    try:
        pooler.start()
        url = pooler.create_database()
        await migrate(url, None)
        await create_things(url)
        opened += [open_database(url, pool=12) for _ in range(2)]
        for db in opened:
            await db.open()
        yield opened
    finally:
        for db in opened:
            await db.close()
        pooler.stop()


async def test_blocks_take_turns_and_get_their_own_answers(processes: list[Database]) -> None:
    async with processes[0].write() as change:
        await change.many(ADD, [{"id": number, "name": f"n{number}"} for number in range(100)])
    servers: set[int] = set()

    async def one(db: Database, number: int) -> None:
        for turn in range(5):
            async with db.read() as tx:
                row = await tx.one(GET, id=number)
                servers.add(await tx.value(WHO))
                assert row is not None and row.id == number
                assert (await tx.value(COUNT), len(await tx.all(NAMES))) == (100, 100)
            async with db.write() as change:
                assert await change.execute(RENAME, key=number, new_name=f"{number} {turn}") == 1
            async with db.read(snapshot=True) as tx:
                row = await tx.one(GET, id=number)
                assert row is not None and row.name == f"{number} {turn}"
            async with db.write() as change:
                thing = await change.session.get(Thing, number)
                assert thing is not None and thing.name == f"{number} {turn}"
                thing.name = f"{number} again"

    await asyncio.gather(*(one(processes[number % 2], number) for number in range(24)))
    assert len(servers) == CONNECTIONS
    async with processes[1].read() as tx:
        assert [row.name for row in (await tx.all(NAMES))[:24]] == [f"{number} again" for number in range(24)]


async def test_nothing_of_a_block_is_left_to_the_next(processes: list[Database]) -> None:
    named = sa.text("SELECT count(*) FROM pg_prepared_statements")
    async with processes[0].write() as change:
        await change.session.execute(sa.select(Thing))
    for db in processes:
        async with db.read() as tx:
            assert await tx.value(sa.text("SHOW statement_timeout")) == "30s"
            assert await tx.value(sa.text("SHOW transaction_read_only")) == "on"
            assert await tx.value(named) == 0


async def test_an_error_ends_a_read_block_and_no_other(processes: list[Database]) -> None:
    db = processes[0]
    with pytest.raises(errors.DatabaseError, match="aborted"):
        async with db.read() as tx:
            with pytest.raises(errors.ReadOnlyViolation):
                await tx.execute(ADD, id=1, name="a")
            await tx.value(COUNT)
    async with db.read() as tx:
        assert await tx.value(COUNT) == 0


async def test_positions_rise_over_all_connections(processes: list[Database]) -> None:
    before = ZERO
    for number in range(10):
        db = processes[number % 2]
        async with db.write() as tx:
            await tx.execute(ADD, id=number, name=f"n{number}")
        assert db.position > before
        before = db.position


async def test_waiting_too_long_for_a_connection_is_told(processes: list[Database]) -> None:
    async with processes[0].read(), processes[0].read():
        pass  # so that the pooler has accepted two of its connections
    async with processes[0].write(), processes[1].write():
        with pytest.raises(errors.Unavailable, match="no connection to the server in time"):
            async with processes[0].read() as tx:
                await tx.value(COUNT)
    async with processes[0].read() as tx:
        assert await tx.value(COUNT) == 0

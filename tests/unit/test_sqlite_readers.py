"""SQLite opens as many readers as blocks are open, and keeps as many as the pool holds.

A single SELECT takes the writer's connection while nobody writes.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from outgrow import errors
from outgrow.endpoints import Database as Settings
from outgrow.endpoints import Node, Shard
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids

COUNT = sa.select(sa.func.count()).select_from(sa.table("outgrow_done"))
ADD = sa.text("INSERT INTO outgrow_done (key, at, result) VALUES (:key, 0, '') RETURNING at")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'data.db'}"
    await migrate(url, None)
    settings = Settings(engine="sqlite", shards=(Shard("0", (Node("db", url),)),), pool=2)
    database = Database(settings, passwords={}, events=Events(), ids=Ids(), headers=lambda: "{}")
    await database.open()
    yield database
    await database.close()


async def test_more_blocks_than_the_pool_holds(database: Database) -> None:
    for _ in range(3):
        async with AsyncExitStack() as blocks:
            for _ in range(5):
                await blocks.enter_async_context(database.read())
            assert database.figures()["db"]["used"] == 5
        assert database.figures()["db"] == {"idle": 2, "used": 0, "max": 3}
    with pytest.raises(KeyboardInterrupt):
        async with database.read():
            raise KeyboardInterrupt  # what may still be at work: its connection is not kept
    assert database.figures()["db"] == {"idle": 1, "used": 0, "max": 3}


async def test_a_select_sees_what_is_committed_whichever_connection_it_takes(database: Database) -> None:
    async def count() -> int:
        async with database.read() as tx:
            return int(await tx.value(COUNT))

    await count()  # compiles it: from now on it is done at once
    async with database.read() as around:
        async with database.write() as tx:
            await tx.execute(ADD, key="a")
            assert await count() == await around.value(COUNT) == 0
            assert await tx.value(COUNT) == 1
        assert await count() == await around.value(COUNT) == 1
    with pytest.raises(KeyError):
        async with database.write() as tx:
            await tx.execute(ADD, key="b")
            raise KeyError
    assert await count() == 1
    with pytest.raises(KeyboardInterrupt):
        async with database.write() as tx:
            await tx.execute(ADD, key="b")
            raise KeyboardInterrupt  # the writer's connection is closed
    assert await count() == 1
    async with database.write() as tx:
        await tx.execute(ADD, key="b")
    assert await count() == 2


async def test_what_only_looks_like_a_select_cannot_write_in_a_read_block(database: Database) -> None:
    disguised = ADD.columns(sa.column("at", sa.Integer))
    for _ in range(2):  # the second time, its text is known
        with pytest.raises(errors.ReadOnlyViolation):
            async with database.read() as tx:
                await tx.all(disguised, key="a")
    async with database.read() as tx:
        assert await tx.value(COUNT) == 0

"""og.db.transact: what was not done is done again, and nothing is done twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from outgrow import errors
from outgrow.endpoints import Database as Settings
from outgrow.endpoints import Shard
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.database.write import Write
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids
from tests.support.pgbouncer import node
from tests.support.postgres import PostgresServer

rows = sa.table("rows", sa.column("n", sa.Integer))
ADD = sa.insert(rows)
COUNT = sa.select(sa.func.count()).select_from(rows)
CREATE = sa.text("CREATE TABLE rows (n integer)")


def open_database(url: str, **settings: object) -> Database:
    engine = "sqlite" if url.startswith("sqlite") else "postgres"
    return Database(
        Settings(engine=engine, shards=(Shard("0", (node(url),)),), **settings),  # type: ignore[arg-type]
        passwords={},
        events=Events(),
        ids=Ids(),
        headers=lambda: "{}",
    )


@pytest.fixture(params=["sqlite", "postgres", "pgbouncer"])
async def db(request: pytest.FixtureRequest, tmp_path: object) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
    else:
        server = request.getfixturevalue("pooler" if request.param == "pgbouncer" else "postgres_server")
        url = server.create_database()
    await migrate(url, None)
    database = open_database(url)
    await database.open()
    async with database.write() as tx:
        await tx.execute(CREATE)
    yield database
    await database.close()


async def count(db: Database) -> int:
    async with db.read() as tx:
        return int(await tx.value(COUNT))


async def test_a_conflict_is_repeated(db: Database) -> None:
    attempts = 0

    async def add(tx: Write) -> int:
        nonlocal attempts
        attempts += 1
        await tx.execute(ADD, n=attempts)
        if attempts < 3:
            raise errors.Conflict("somebody else was faster")
        return attempts

    assert await db.transact(add) == 3
    assert await count(db) == 1
    attempts = -10
    with pytest.raises(errors.Conflict):
        await db.transact(add, attempts=2)
    assert attempts == -8 and await count(db) == 1


async def test_what_repeating_cannot_help_is_not_repeated(db: Database) -> None:
    attempts = 0

    async def fail(tx: Write) -> None:
        nonlocal attempts
        attempts += 1
        raise errors.OutcomeUnknown("COMMIT: the connection was lost")

    with pytest.raises(errors.OutcomeUnknown):
        await db.transact(fail)
    assert attempts == 1
    with pytest.raises(ZeroDivisionError):
        await db.transact(_divide)
    with pytest.raises(errors.Misuse, match="attempts"):
        await db.transact(fail, attempts=0)
    with pytest.raises(errors.Misuse, match="255"):
        await db.transact(fail, idempotency_key="")


async def _divide(tx: Write) -> float:
    return 1 / 0


async def test_a_key_is_done_once_and_has_one_result(db: Database) -> None:
    async def add(tx: Write) -> dict[str, int]:
        before = await tx.value(COUNT)
        await tx.execute(ADD, n=before)
        return {"rows": before + 1}

    assert await db.transact(add, idempotency_key="a") == {"rows": 1}
    assert await db.transact(add, idempotency_key="a") == {"rows": 1}
    assert await db.transact(add, idempotency_key="b") == {"rows": 2}
    results = await asyncio.gather(*(db.transact(add, idempotency_key="c", attempts=20) for _ in range(8)))
    assert results == [{"rows": 3}] * 8 and await count(db) == 3


async def test_a_result_that_is_no_json_is_refused(db: Database) -> None:
    async def odd(tx: Write) -> object:
        await tx.execute(ADD, n=1)
        return object()

    with pytest.raises(errors.Misuse, match="JSON"):
        await db.transact(odd, idempotency_key="a")
    assert await count(db) == 0


@pytest.mark.parametrize("key", [None, "a key"])
async def test_a_commit_that_was_not_answered_is_not_done_twice(key: str | None) -> None:
    """It waits for a replica that is gone when the server dies: done, and nobody was told."""
    server = PostgresServer()
    try:
        server.initialise()
        server.start()
        await migrate(server.url(), None)
        db = open_database(server.url(), checkout_timeout_s=20.0)
        await db.open()
        async with db.write() as tx:
            await tx.execute(CREATE)
        server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.execute("SELECT pg_reload_conf()")

        async def add(tx: Write) -> str:
            await tx.execute(ADD, n=1)
            return "done"

        task = asyncio.create_task(db.transact(add, idempotency_key=key))
        deadline = time.monotonic() + 20
        while not server.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        server.kill()
        with (server.data / "postgresql.auto.conf").open("a") as file:
            file.write("synchronous_standby_names = ''\n")
        server.start()
        if key is None:
            with pytest.raises(errors.OutcomeUnknown):
                await task
        else:
            assert await task == "done"
        assert await count(db) == 1
        await db.close()
    finally:
        server.stop()

"""PostgreSQL is killed under load: what was acknowledged is there, and the pool finds its way back."""

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from outgrow import errors
from outgrow.endpoints import Database as Settings
from outgrow.endpoints import Node, Shard
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids
from tests.support.postgres import PostgresServer

notes = sa.Table(
    "notes", sa.MetaData(), sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False)
)
ADD = sa.insert(notes)
ALL = sa.select(notes.c.id)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=True)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()


async def test_no_acknowledged_write_is_lost_and_the_pool_recovers(own_server: PostgresServer) -> None:
    url = own_server.url()
    await migrate(url, None)
    own_server.execute("CREATE TABLE notes (id bigint PRIMARY KEY)")
    shards = (Shard("0", (Node("db", url),)),)
    db = Database(
        Settings(engine="postgres", shards=shards, pool=5, checkout_timeout_s=10.0),
        passwords={},
        events=Events(),
        ids=Ids(),
        headers=lambda: "{}",
    )
    await db.open()
    ids, acknowledged, failed = Ids(), set[int](), 0
    stop = asyncio.Event()

    async def write() -> None:
        nonlocal failed
        while not stop.is_set():
            number = ids.next()
            try:
                async with db.write() as tx:
                    await tx.execute(ADD, id=number)
                acknowledged.add(number)
            except errors.Unavailable:
                failed += 1

    async def read() -> None:
        while not stop.is_set():
            try:
                async with db.read() as tx:
                    await tx.value(sa.text("SELECT 1"))
            except errors.Unavailable:
                pass
            await asyncio.sleep(0.001)

    load = [asyncio.create_task(write()) for _ in range(8)] + [asyncio.create_task(read()) for _ in range(4)]
    await wait_for(lambda: len(acknowledged) > 100)
    before = len(acknowledged)
    own_server.kill()
    await wait_for(lambda: failed > 0)
    await asyncio.to_thread(own_server.start)
    await wait_for(lambda: len(acknowledged) > before + 100)
    stop.set()
    await asyncio.gather(*load)
    async with db.read() as tx:
        stored = {row.id for row in await tx.all(ALL)}
    assert acknowledged <= stored
    assert db.figures()["db"]["used"] == 0
    await db.close()


async def wait_for(condition: object, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_an_unreachable_server_is_told_with_its_address() -> None:
    db = Database(
        Settings(
            engine="postgres",
            shards=(Shard("0", (Node("db", "postgresql://u@127.0.0.1:1/x"),)),),
            checkout_timeout_s=0.3,
        ),
        passwords={"*": "secret-word"},
        events=Events(),
        ids=Ids(),
        headers=lambda: "{}",
    )
    with pytest.raises(errors.Unavailable, match=r"u@127\.0\.0\.1:1/x") as error:
        await db.open()
    assert "secret-word" not in str(error.value)


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_wrong_password_is_told_at_once(
    postgres_server: PostgresServer, pooled: bool, request: pytest.FixtureRequest
) -> None:
    url = postgres_server.url(password="wrong")
    node = Node("db", request.getfixturevalue("pooler").url(url) if pooled else url, pooled=pooled)
    db = Database(
        Settings(engine="postgres", shards=(Shard("0", (node,)),)),
        passwords={},
        events=Events(),
        ids=Ids(),
        headers=lambda: "{}",
    )
    async with asyncio.timeout(2):
        with pytest.raises(errors.Unavailable, match="authentication failed"):
            await db.open()

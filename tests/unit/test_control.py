"""The fleet's hand inside a process: holds that end by themselves, and a database that moves under load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster.processes import Processes
from outgrow.endpoints import Endpoints, Secrets
from outgrow.errors import Unavailable
from outgrow.runtime import control
from outgrow.runtime.application import Outgrow
from outgrow.runtime.bookmark import Position
from outgrow.runtime.control import Control
from outgrow.runtime.database.gate import Gate
from outgrow.runtime.database.migrate import migrate
from tests.support.postgres import PostgresServer

WITHIN_S = 10.0
CREATE = "CREATE TABLE marks (id bigint PRIMARY KEY)"
ADD = sa.text("INSERT INTO marks (id) VALUES (:id)")
LARGEST = sa.text("SELECT max(id) FROM marks")


class World:
    """A process that listens, and the document that it would read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = Gate(WITHIN_S)
        self.published = self.obeyed = 1
        self.broken = 0
        self.told: list[tuple[str, int, int, bool]] = []
        self.control = Control(
            folder,
            self.gate,
            epoch=lambda: self.obeyed,
            reload=self.reload,
            handed_over=lambda *what: self.told.append((*what, self.gate.held)),
        )

    async def reload(self) -> None:
        if self.broken:
            self.broken -= 1
            raise Unavailable("the new primary does not answer")
        self.obeyed = self.published


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / ("long" * 40))  # more than a socket's path can hold
    await made.control.open()
    yield made
    await made.control.close()
    assert list(made.folder.iterdir()) == []


async def until(condition: object) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_held_and_released(world: World) -> None:
    async with Processes(world.folder) as processes:
        [state] = await processes.ask("state")
        assert (state.epoch, state.held) == (1, False)
        await processes.hold(5)
        assert world.gate.held
        world.published = 2
        [state] = await processes.ask("reload")
        assert (state.epoch, state.held) == (2, True)
        await processes.ask("release")
        assert not world.gate.held
        await processes.hold(5)
        await processes.ask("release", node="postgres-1", timeline=2, lsn=5 << 32)
        assert world.told == [("postgres-1", 2, 5 << 32, True)], "before anybody writes at the next one"
        assert not world.gate.held
        await processes.ask("warm", engine="sqlite")


async def test_the_owner_is_gone(world: World) -> None:
    world.published = 2
    world.broken = 1  # the first look fails: writers wait on
    async with Processes(world.folder) as processes:
        await processes.hold(60)
    await until(lambda: not world.gate.held)
    assert world.obeyed == 2, "it has looked at the document before it went on"


async def test_its_time_is_up(world: World) -> None:
    world.published = 2
    async with Processes(world.folder) as processes:
        await processes.hold(0.05)
        await until(lambda: not world.gate.held)
        assert world.obeyed == 2
        await processes.hold(60)


async def test_two_holders(world: World) -> None:
    async with Processes(world.folder) as first, Processes(world.folder) as second:
        await first.hold(60)
        with pytest.raises(Exception, match="somebody else holds the writes"):
            await second.hold(60)
        assert world.gate.held, "the refused one has released nothing"
        await first.ask("release")
        await second.hold(60)


async def test_a_writer_that_does_not_leave(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "DRAIN_WITHIN_S", 0.05)
    await world.gate.enter()
    async with Processes(world.folder) as processes:
        with pytest.raises(Exception, match="a write block was still open"):
            await processes.hold(60)
        assert not world.gate.held
        world.gate.leave()
        await processes.hold(60)


async def test_nonsense_and_dead_processes(world: World) -> None:
    (world.folder / "999999999.sock").touch()
    async with Processes(world.folder) as processes:
        assert len(await processes.ask("state")) == 1
        with pytest.raises(Exception, match="a process of the application"):
            await processes.ask("dance")
    assert not (world.folder / "999999999.sock").exists()


async def test_moved_back_and_forth_under_load(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {"sqlite": f"sqlite:///{tmp_path}/a.db", "postgres": postgres_server.create_database()}
    secrets = Secrets(application="00" * 32, passwords={"*": postgres_server.password})
    endpoints.write(tmp_path / "secrets.json", secrets)
    for url in urls.values():
        await migrate(url, None)
    document = Endpoints(
        application="a",
        stage="single-server",
        database=endpoints.Database(engine="sqlite", shards=(_shard(urls["sqlite"], 0),)),
        secrets_file=str(tmp_path / "secrets.json"),
        control=str(tmp_path / "run"),
    )
    endpoints.write(tmp_path / "endpoints.json", document)
    monkeypatch.setenv("OUTGROW_ENDPOINTS", str(tmp_path / "endpoints.json"))
    positions: list[Position] = []
    reads = 0
    async with Outgrow() as og:
        async with og.db.write() as tx:
            await tx.execute(sa.text(CREATE))
        postgres_server.execute(CREATE, urls["postgres"].rpartition("/")[2])
        ended = False

        async def write() -> None:
            while not ended:
                async with og.db.write() as tx:
                    await tx.execute(ADD, id=og.ids.next())
                positions.append(og.db.position)
                await asyncio.sleep(0)

        async def read() -> None:
            nonlocal reads
            while not ended:
                async with og.db.read() as tx:
                    await tx.value(LARGEST)
                reads += 1
                await asyncio.sleep(0)

        working = [asyncio.ensure_future(each()) for each in (write, write, read, read)]
        for epoch, engine in enumerate(("postgres", "sqlite", "postgres"), 2):
            count = len(positions)
            await until(lambda count=count: len(positions) > count + 20)
            async with Processes(tmp_path / "run") as processes:
                await processes.hold(10)
                during = reads
                await until(lambda during=during: reads > during + 5)
                url = endpoints.split_password(urls[engine])[0]
                database = replace(document.database, engine=engine, shards=(_shard(url, epoch << 16),))
                endpoints.write(
                    tmp_path / "endpoints.json", replace(document, epoch=epoch, database=database)
                )
                [state] = await processes.ask("reload")
                assert state.epoch == epoch
            await until(lambda: not og.db.gate.held)
            assert og.db.engine == engine
        await until(lambda: positions[-1].timeline >= 4 << 16)
        ended = True
        await asyncio.gather(*working)
    assert positions == sorted(positions), "a bookmark has gone back"
    assert list((tmp_path / "run").iterdir()) == [] and os.environ["OUTGROW_ENDPOINTS"]


async def test_a_pool_becomes_smaller_and_larger_while_it_is_used(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = endpoints.split_password(postgres_server.create_database())[0]
    secrets = Secrets(application="00" * 32, passwords={"*": postgres_server.password})
    endpoints.write(tmp_path / "secrets.json", secrets)
    document = Endpoints(
        application="a",
        stage="separate-database",
        database=endpoints.Database(engine="postgres", shards=(_shard(url, 0),), pool=8),
        secrets_file=str(tmp_path / "secrets.json"),
        control=str(tmp_path / "run"),
    )
    endpoints.write(tmp_path / "endpoints.json", document)
    monkeypatch.setenv("OUTGROW_ENDPOINTS", str(tmp_path / "endpoints.json"))
    async with Outgrow() as og, Processes(tmp_path / "run") as processes:
        ended = False

        async def read() -> None:
            while not ended:
                async with og.db.read() as tx:
                    await tx.value(sa.text("SELECT pg_sleep(0.01)"))

        def opened() -> int:
            return og.db.figures()["db"]["idle"] + og.db.figures()["db"]["used"]

        working = [asyncio.ensure_future(read()) for _ in range(12)]
        for epoch, pool in enumerate((8, 2, 5, 3, 8), 1):
            database = replace(document.database, pool=pool)
            endpoints.write(tmp_path / "endpoints.json", replace(document, epoch=epoch, database=database))
            await processes.ask("reload")
            await until(lambda pool=pool: opened() == pool)
            assert og.db.figures()["db"]["max"] == pool
        ended = True
        await asyncio.gather(*working)


def _shard(url: str, timeline: int) -> endpoints.Shard:
    return endpoints.Shard("0", (endpoints.Node("db", url),), timeline)

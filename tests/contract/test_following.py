"""What changes in the database outside of the application its shared cache forgets within a second."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median

import asyncpg
import pytest
from sqlalchemy import text

from outgrow import Outgrow, errors
from outgrow.engines.postgres.setup import provision_changes
from outgrow.runtime import following
from outgrow.runtime.cache import changes, shared
from outgrow.runtime.database.postgres_changes import drop_leftovers
from outgrow.runtime.database.postgres_readiness import lacking
from tests.support.cache import CacheServer
from tests.support.following import Reader, World, reads, until
from tests.support.postgres import PostgresServer
from tests.support.replicas import Replicated, replicated

SOON_S = 1.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "GRACE_S", 0.0)
    monkeypatch.setattr(following, "LOOK_S", 0.1)


@pytest.fixture(scope="module")
def cache() -> Iterator[CacheServer]:
    made = CacheServer()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
async def world(postgres_server: PostgresServer, cache: CacheServer) -> AsyncIterator[World]:
    with cache.client as client:
        client.flushall()
    made = World(postgres_server, cache)
    made.make()
    await made.publish("notes", "others")
    made.sql("INSERT INTO notes SELECT number, 'ann', 'old' FROM generate_series(1, 3) AS number")
    yield made
    made.drop_slot()


@pytest.fixture
async def og(world: World) -> AsyncIterator[Outgrow]:
    async with world.process() as made:
        await reads(made)
        yield made


@pytest.fixture
async def reader(og: Outgrow) -> Reader:
    """What the three notes show is in the cache."""
    made = Reader(og)
    for number in (1, 2, 3):
        await made.shows(number, "old")
    made.loads = 0
    return made


async def come_to(world: World, reader: Reader) -> None:
    """Until everything that has been committed is told: changes are told in the order of their commits."""
    world.sql("UPDATE notes SET title = title || '+' WHERE id = 3")
    await until(lambda: reader.title(3), "old+")


async def test_what_psql_changes_is_seen_within_a_second(world: World, reader: Reader) -> None:
    took = []
    for title, statement in (
        ("new", "UPDATE notes SET title = 'new' WHERE id = 1"),
        (None, "DELETE FROM notes WHERE id = 1"),
        ("again", "INSERT INTO notes VALUES (1, 'ann', 'again')"),
        (None, "TRUNCATE notes"),
    ):
        world.sql(statement)
        took.append(await reader.shows(1, title))
    assert median(took) < SOON_S, "a busy machine may be late once"


async def test_tags_of_the_row_as_it_was_are_forgotten_too(world: World, og: Outgrow, reader: Reader) -> None:
    async def owned(by: str) -> list[int]:
        async with og.db.read() as tx:
            rows = await tx.all(text("SELECT id FROM notes WHERE owner = :by ORDER BY id"), by=by)
            return [row.id for row in rows]

    async def shown(by: str) -> list[int]:
        return await og.cache.get(f"owned:{by}", lambda: owned(by), ttl="1h", tags=[f"owner:{by}"])

    assert (await shown("ann"), await shown("bob")) == ([1, 2, 3], [])
    world.sql("UPDATE notes SET owner = 'bob' WHERE id = 2")
    await until(lambda: shown("ann"), [1, 3])
    await until(lambda: shown("bob"), [2])


async def test_what_a_transaction_has_announced_is_not_forgotten_again(
    world: World, og: Outgrow, reader: Reader
) -> None:
    async with og.db.write() as tx:
        await tx.execute(text("UPDATE notes SET title = 'own' WHERE id = 1"))
        og.cache.invalidate("note:1", "owner:ann")
    assert await reader.title(1) == "own"
    await come_to(world, reader)
    loads = reader.loads
    assert await reader.title(1) == "own"
    assert reader.loads == loads, "the entry that was loaded after the commit is still there"


async def test_what_a_transaction_has_not_announced_is_forgotten(
    world: World, og: Outgrow, reader: Reader
) -> None:
    async with og.db.write() as tx:
        await tx.execute(text("UPDATE notes SET title = 'own' WHERE id IN (1, 2)"))
        og.cache.invalidate("note:1")
    await reader.shows(2, "own")


async def test_a_table_without_a_function_is_ignored(world: World, reader: Reader) -> None:
    world.sql("INSERT INTO others VALUES (1)")
    world.sql("TRUNCATE others")
    await come_to(world, reader)
    loads = reader.loads
    assert (await reader.title(1), await reader.title(2)) == ("old", "old")
    assert reader.loads == loads


async def test_a_function_that_raises_is_told_and_everything_is_forgotten(
    world: World, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []
    reader.og.events.cache_change_failed.subscribe(failed.append)
    with caplog.at_level(logging.ERROR, "outgrow.cache"):
        world.sql("UPDATE notes SET title = 'broken' WHERE id = 1")
        await reader.shows(1, "broken")
    assert failed == ["notes"]
    (line,) = [each.getMessage() for each in caplog.records if each.name == "outgrow.cache"]
    assert "changes('notes')" in line and "following.py" in line and "LookupError: no tags" in line
    loads = reader.loads
    assert await reader.title(2) == "old"
    assert reader.loads == loads + 1


@pytest.mark.parametrize("bound", ["TAGS_MAX", "ROWS_MAX"])
async def test_a_huge_transaction_has_everything_forgotten(
    world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(changes, bound, 50)
    world.sql("INSERT INTO notes SELECT n, 'bob', 'x' FROM generate_series(10, 2000) AS n")
    world.sql("UPDATE notes SET title = 'new' WHERE id = 1")
    await reader.shows(1, "new")
    loads = reader.loads
    assert await reader.title(2) == "old"
    assert reader.loads == loads + 1


async def test_what_readers_do_not_see_yet_is_forgotten_when_they_do(
    world: World, og: Outgrow, reader: Reader
) -> None:
    """The log has a commit that waits for a replica long before anybody can read what it has written."""
    world.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    world.sql("SELECT pg_reload_conf()")
    try:
        await until(lambda: asyncio.to_thread(named, world), "nobody")
        late = asyncio.create_task(
            asyncio.to_thread(world.sql, "UPDATE notes SET title = 'late' WHERE id = 1")
        )
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        await until(lambda: asyncio.to_thread(lambda: world.sql(waiting)[0][0]), 1)
        await asyncio.to_thread(world.sql, "SELECT pg_sleep(0.2)")
        assert og._following is not None and og._following.reads
        await og.cache._shared.invalidate(["note:1"], await og.db.written())  # type: ignore[union-attr]
        assert await reader.title(1) == "old", "it is loaded, and kept, while nobody sees the commit"
    finally:
        world.sql("ALTER SYSTEM RESET synchronous_standby_names")
        world.sql("SELECT pg_reload_conf()")
    await late
    await reader.shows(1, "late")


def named(world: World) -> str:
    return str(world.sql("SHOW synchronous_standby_names")[0][0])


async def test_whoever_reads_is_killed_and_nothing_is_lost(world: World, tmp_path: Path) -> None:
    """What was sent to it and not told is told by the next one, and nothing else is forgotten."""
    first = world.other_process(tmp_path)
    try:
        active = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{world.slot}' AND active"
        await until(lambda: asyncio.to_thread(lambda: world.sql(active)[0][0]), 1)
        async with world.process() as og:
            reader = Reader(og)
            world.sql("UPDATE notes SET title = 'seen' WHERE id = 1")
            await reader.shows(1, "seen")  # so it follows
            assert await reader.title(2) == "old"
            assert og._following is not None and not og._following.reads
            first.send_signal(signal.SIGSTOP)
            world.sql("UPDATE notes SET title = 'lost?' WHERE id = 1")
            first.kill()
            await reader.shows(1, "lost?")
            loads = reader.loads
            assert await reader.title(2) == "old"
            assert reader.loads == loads
    finally:
        first.kill()
        first.wait()


def lose_slot(world: World) -> None:
    """As if nobody had read for long: the server keeps no more of its log than it may."""
    status = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{world.slot}'"
    world.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    world.sql("SELECT pg_reload_conf()")
    try:
        for _ in range(20):
            world.sql("SELECT pg_logical_emit_message(false, 'test', 'more')")
            world.sql("SELECT pg_switch_wal()")
            world.sql("CHECKPOINT")
            if world.sql(status)[0][0] == "lost":
                return
        raise AssertionError(world.sql(status))
    finally:
        world.sql("ALTER SYSTEM RESET max_slot_wal_keep_size")
        world.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize("how", ["dropped", "moved on", "lost"])
async def test_a_slot_that_does_not_go_on_has_everything_forgotten(world: World, how: str) -> None:
    async with world.process() as og:
        await reads(og)
        assert await Reader(og).title(1) == "old"
    gone = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{world.slot}' AND active"
    await until(lambda: asyncio.to_thread(lambda: world.sql(gone)[0][0]), 0)
    world.sql("UPDATE notes SET title = 'unheard' WHERE id = 1")
    if how == "dropped":
        world.drop_slot()
    elif how == "lost":
        lose_slot(world)
    else:
        world.sql(f"SELECT pg_replication_slot_advance('{world.slot}', pg_current_wal_lsn())")
    async with world.process() as og:
        await Reader(og).shows(1, "unheard")


async def test_changes_are_told_when_the_shared_cache_is_back(postgres_server: PostgresServer) -> None:
    cache = CacheServer()
    try:
        cache.start()
        world = World(postgres_server, cache)
        world.make()
        await world.publish("notes")
        world.sql("INSERT INTO notes VALUES (1, 'ann', 'old')")
        async with world.process() as og:
            await reads(og)
            reader = Reader(og)
            await reader.shows(1, "old")
            cache.kill()
            world.sql("UPDATE notes SET title = 'meanwhile' WHERE id = 1")
            await asyncio.sleep(0.2)
            cache.start()
            await reader.shows(1, "meanwhile")
            world.sql("UPDATE notes SET title = 'after' WHERE id = 1")
            await reader.shows(1, "after")
        world.drop_slot()
    finally:
        cache.stop()


async def test_after_a_failover_the_new_primary_is_followed(cache: CacheServer) -> None:
    """It has no slot, so everything is forgotten, and what changes there is heard."""
    with cache.client as client:
        client.flushall()
    with replicated(1, Replicated) as cluster:
        world = World(cluster.primary, cache)
        world.make()
        await world.publish("notes")
        world.sql("INSERT INTO notes VALUES (1, 'ann', 'old')")
        cluster.settle()
        (replica,) = cluster.replicas
        async with world.process(cluster.primary.port, replica.port) as og:
            await reads(og)
            reader = Reader(og)
            await reader.shows(1, "old")
            cluster.primary.kill()
            await asyncio.to_thread(replica.promote)
            replica.execute("UPDATE notes SET title = 'there' WHERE id = 1", world.database)
            await reader.shows(1, "there")
            await reads(og)
            replica.execute("UPDATE notes SET title = 'then' WHERE id = 1", world.database)
            await reader.shows(1, "then")


async def test_what_a_former_primary_keeps_of_it_goes(cache: CacheServer) -> None:
    """Its log would be kept for nobody. At the primary, and where somebody reads, nothing is touched."""
    with replicated(1, Replicated) as cluster:
        world = World(cluster.primary, cache)
        world.make()
        cluster.settle()
        (replica,) = cluster.replicas
        make = f"SELECT pg_create_logical_replication_slot('{world.slot}', 'pgoutput')"
        cluster.primary.execute(make, world.database)
        making = asyncio.create_task(asyncio.to_thread(replica.execute, make, world.database))
        while not making.done():  # it begins with what the primary says is under way
            await asyncio.to_thread(cluster.primary.execute, "SELECT pg_log_standby_snapshot()")
            await asyncio.sleep(0.05)
        await making
        url = str(world.document(cluster.primary.port, replica.port).cache.changes_url)
        await drop_leftovers(url, world.password, world.slot)
        count = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'"
        assert [each.execute(count)[0][0] for each in (cluster.primary, replica)] == [1, 0]


async def test_where_nobody_follows_any_more_no_log_is_kept(world: World) -> None:
    """What the fleet does at its start when outgrow.toml names no table any more."""
    async with world.process() as og:
        await reads(og)
    name = f"gone_{world.database}"
    world.sql(f"ALTER ROLE {world.role} RENAME TO {name}_changes")
    world.sql(f"SELECT pg_copy_logical_replication_slot('{world.slot}', '{name}_changes')")
    connection = await asyncpg.connect(world.server.url(world.database))
    await provision_changes(connection, name, None)
    await connection.close()
    role = f"SELECT rolcanlogin, rolreplication FROM pg_roles WHERE rolname = '{name}_changes'"
    assert [tuple(row) for row in world.sql(role)] == [(False, False)]
    slots = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}_changes'"
    assert world.sql(slots)[0][0] == 0


async def test_what_a_role_lacks_to_read_changes_is_said_in_sql(world: World) -> None:
    url = f"postgresql://{world.role}@127.0.0.1:{world.server.port}/{world.database}"
    world.sql(f"ALTER ROLE {world.role} NOREPLICATION")
    keeps, may = await lacking(url, world.password)
    assert "max_slot_wal_keep_size = '4GB'" in keeps and may == f'ALTER ROLE "{world.role}" REPLICATION;'
    world.sql(may)
    assert await lacking(url, world.password) == [keeps]
    with pytest.raises(errors.Unavailable, match="no connection to"):
        await lacking(url, "wrong")


async def test_a_table_that_is_not_there_cannot_be_published(world: World) -> None:
    with pytest.raises(errors.Misuse, match="names nothing_here, and the database has no such table"):
        await world.publish("notes", "nothing_here")


async def test_what_is_published_is_what_was_named_last(world: World) -> None:
    identity = "SELECT relname, relreplident FROM pg_class WHERE relname IN ('notes', 'others')"
    published = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'outgrow_changes'"
    assert {tuple(row) for row in world.sql(identity)} == {("notes", b"f"), ("others", b"f")}
    await world.publish("notes")
    assert [row[0] for row in world.sql(published)] == ["notes"]
    assert {tuple(row) for row in world.sql(identity)} == {("notes", b"f"), ("others", b"d")}
    await world.publish()
    assert world.sql("SELECT count(*) FROM pg_publication")[0][0] == 0

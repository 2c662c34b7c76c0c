"""Reads and writes over real replicas: what a session knows it sees again, whatever happens to the nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from outgrow import errors
from outgrow.endpoints import Cache as CacheSettings
from outgrow.endpoints import Database as Settings
from outgrow.endpoints import Shard
from outgrow.engines.postgres.setup import LOOK
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import SEVERAL, Position, Writer
from outgrow.runtime.cache import Cache
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.database.postgres_connection import lsn
from outgrow.runtime.database.watch import LOOK_SOON_S
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids
from outgrow.runtime.scope import Scope
from tests.support.replicas import Replicated, replicated

things = sa.Table("things", sa.MetaData(), sa.Column("id", sa.BigInteger, primary_key=True))
ADD = sa.insert(things)
COUNT = sa.select(sa.func.count()).select_from(things)


class Cluster(Replicated):
    """A primary and two replicas with a table, and the URL of a role that may use it and nothing more.

    It `tells` of its timelines where the fleet has set it up.
    """

    tells = True

    def start(self) -> None:
        super().start()
        self.primary.execute("CREATE TABLE things (id bigint PRIMARY KEY)")
        asyncio.run(migrate(self.primary.url(), None))
        self.primary.execute("CREATE ROLE app LOGIN PASSWORD 'secret'")
        self.primary.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        for statement in LOOK.format(application="app").split(";\n") if self.tells else ():
            self.primary.execute(statement)
        self.settle()

    @property
    def url(self) -> str:
        return self.primary.url(user="app", password="secret")


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """For tests that harm nothing."""
    with replicated(2, Cluster) as cluster:
        yield cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """For tests that harm it."""
    with replicated(2, Cluster) as cluster:
        yield cluster


class OwnCluster(Cluster):
    """Somebody's own servers, of which nobody has said that they may tell of their timelines."""

    tells = False


@pytest.fixture
def own_cluster() -> Iterator[OwnCluster]:
    """For tests that harm it."""
    with replicated(1, OwnCluster) as cluster:
        yield cluster


class Told:
    """What the tier has told."""

    def __init__(self) -> None:
        self.events = Events()
        self.reads: Counter[tuple[str, str]] = Counter()
        self.lost = self.shed = 0
        self.failovers: list[tuple[str, int]] = []
        self.events.read_routed.subscribe(lambda node, reason: self.reads.update([(node, reason)]))
        self.events.failed_over.subscribe(lambda _, node, line, seconds: self.failovers.append((node, line)))
        self.events.write_lost.subscribe(self._lost)
        self.events.read_shed.subscribe(self._shed)

    def _lost(self, shard: str) -> None:
        self.lost += 1

    def _shed(self, shard: str) -> None:
        self.shed += 1


def database(cluster: Cluster, told: Told, **settings: object) -> Database:
    consistency = str(settings.pop("consistency", "session"))
    made: dict[str, object] = {"checkout_timeout_s": 5.0, **settings}
    shards = (Shard("0", cluster.nodes(cluster.url)),)
    return Database(
        Settings(engine="postgres", shards=shards, replication="async", **made),  # type: ignore[arg-type]
        passwords={},
        events=told.events,
        ids=Ids(),
        headers=lambda: "{}",
        consistency=consistency,
    )


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def db(shared: Cluster, told: Told) -> AsyncIterator[Database]:
    shared.delay(0)
    shared.settle()
    opened = database(shared, told)
    await opened.open()
    await until(lambda: all(seen.role != "unknown" for seen in opened.nodes().values()))
    yield opened
    await opened.close()


@contextmanager
def session(identity: int = 7) -> Iterator[Scope]:
    scope = Scope()
    scope.bookmark.session = identity
    token = request.current.set(scope)
    try:
        yield scope
    finally:
        request.current.reset(token)


async def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


async def answered(scope: Scope) -> None:
    """What the middleware does before an answer leaves."""
    if scope.unsettled is not None:
        await scope.unsettled(scope.bookmark)


_numbers = iter(range(1, 1_000_000))


async def add(db: Database) -> None:
    async with db.write() as tx:
        await tx.execute(ADD, id=next(_numbers))


async def count(db: Database, level: str | None = None) -> int:
    async with db.read(level=level) as tx:
        return int(await tx.value(COUNT))


# --- Levels -------------------------------------------------------------------------------------------


async def test_reads_go_to_replicas_and_a_session_stays_with_one(db: Database, told: Told) -> None:
    for identity in range(1, 21):
        before = told.reads.copy()
        with session(identity):
            for _ in range(3):
                await count(db)
        assert len(told.reads - before) == 1, "one session, one replica"
    assert {node for node, _ in told.reads} == {"r1", "r2"}
    assert {reason for _, reason in told.reads} == {"fresh"}


async def test_without_a_session_reads_are_spread(db: Database, told: Told) -> None:
    await asyncio.gather(*(count(db) for _ in range(60)))
    assert min(told.reads["r1", "fresh"], told.reads["r2", "fresh"]) >= 15


async def test_a_session_reads_what_it_has_written_although_the_replicas_are_late(
    db: Database, shared: Cluster, told: Told
) -> None:
    shared.delay(0.5)
    await until(lambda: bool(told) and all(seen.role != "unknown" for seen in db.nodes().values()))
    with session():
        before = await count(db)
        for number in range(1, 6):
            await add(db)
            assert await count(db) == before + number
        assert {reason for node, reason in told.reads if node == "primary"} <= {"behind", "primary-run"}
        told.reads.clear()
        await asyncio.sleep(1.2)
        assert await count(db) == before + 5
        assert sum(told.reads.values()) == 1 and ("primary", "behind") not in told.reads


async def test_a_replica_that_has_caught_up_since_it_was_looked_at_serves(
    db: Database, shared: Cluster, told: Told
) -> None:
    """It is asked once more before the primary is, which would serve four of five otherwise."""
    with session():
        for _ in range(10):
            await add(db)
            await asyncio.to_thread(shared.settle)
            await asyncio.sleep(LOOK_SOON_S)
            await count(db)
    assert told.reads["primary", "behind"] < 5  # a busy machine may not answer in time


async def test_what_it_has_read_on_the_primary_it_sees_on_replicas(
    db: Database, shared: Cluster, told: Told
) -> None:
    shared.delay(0.5)
    with session() as reader:
        await add(db)
        reader.bookmark.positions.clear()  # another session, as far as the next lines can tell
        first = await count(db, "strong")
        await answered(reader)
        assert not reader.bookmark.seen and reader.bookmark.positions["0"].offset
        assert await count(db) == first
        assert told.reads["primary", "behind"] == 1


async def test_a_bookmark_does_not_change_with_every_read(db: Database) -> None:
    with session() as scope:
        await count(db)
        assert scope.bookmark.changed
        scope.bookmark.changed = False
        await count(db)
        assert not scope.bookmark.changed


async def test_another_replica_has_to_prove_that_it_is_as_far(
    db: Database, shared: Cluster, told: Told
) -> None:
    with session() as scope:
        await count(db)
        (run,) = scope.bookmark.seen.values()
        scope.bookmark.seen["0"] = SEVERAL  # nobody can say which it was
        await count(db)
        assert told.reads["primary", "moved"] == 1
        assert scope.bookmark.seen["0"] not in (run, SEVERAL)


async def test_the_other_levels(db: Database, shared: Cluster, told: Told) -> None:
    await until(lambda: len(db.nodes()) == 3)
    with session() as scope:
        await add(db)
        await count(db, "strong")
        assert told.reads["primary", "strong"] == 1
        await count(db, "pinned(5s)")
        assert told.reads["primary", "pinned"] == 1
        scope.bookmark.wrote_at -= 6
        await count(db, "pinned(5s)")
        await count(db, "eventual")
        assert sum(told.reads.values()) == 4 and told.reads["primary", "strong"] == 1
        shared.delay(10.0)
        await add(db)
        await asyncio.sleep(0.6)
        await count(db, "bounded(300ms)")
        assert told.reads["primary", "behind"] == 1
        await count(db, "bounded(30s)")
        assert told.reads["primary", "behind"] == 1
    with pytest.raises(errors.Misuse, match="consistency level"):
        db.read(level="bounded")


async def test_the_level_of_the_application(shared: Cluster, told: Told) -> None:
    opened = database(shared, told, consistency="strong")
    await opened.open()
    await count(opened)
    await opened.close()
    assert told.reads == {("primary", "strong"): 1}


async def test_outside_of_a_request_this_process_reads_what_it_has_written(
    db: Database, shared: Cluster
) -> None:
    shared.delay(0.5)
    before = await count(db, "strong")
    await add(db)
    assert await count(db) == before + 1


async def test_a_read_block_cannot_write_anywhere(db: Database) -> None:
    for level in ("session", "strong"):
        with pytest.raises(errors.ReadOnlyViolation):
            async with db.read(level=level) as tx:
                await tx.execute(ADD, id=1)


async def test_a_snapshot_on_a_replica(db: Database, told: Told) -> None:
    async with db.read(snapshot=True) as tx:
        before = await tx.value(COUNT)
        await add(db)
        await asyncio.sleep(0.1)
        assert await tx.value(COUNT) == before
    assert ("primary", "fresh") not in told.reads


# --- Lag ----------------------------------------------------------------------------------------------


async def test_lag_does_not_grow_while_nothing_is_written(db: Database) -> None:
    await add(db)
    await until(lambda: all(seen.lag_bytes == 0 for seen in db.nodes().values()))
    await asyncio.sleep(0.7)
    assert [seen.lag_s for seen in db.nodes().values()] == [0.0, 0.0, 0.0]


async def test_a_replica_that_lags_gets_no_reads(shared: Cluster, told: Told) -> None:
    opened = database(shared, told, max_lag_s=0.4)
    await opened.open()
    await until(lambda: all(seen.role != "unknown" for seen in opened.nodes().values()))
    late = shared.replicas[0]
    late.execute("SELECT pg_wal_replay_pause()")
    try:
        await add(opened)
        await until(lambda: opened.nodes()["r1"].lag_s > 0.4)
        told.reads.clear()
        for _ in range(20):
            await count(opened, "eventual")
        assert set(told.reads) == {("r2", "fresh")}
    finally:
        late.execute("SELECT pg_wal_replay_resume()")
    await until(lambda: opened.nodes()["r1"].lag_s == 0.0)
    await opened.close()


async def test_without_replicas_the_primary_takes_their_reads_within_a_budget(
    cluster: Cluster, told: Told
) -> None:
    opened = database(cluster, told, pool=4)
    await opened.open()
    for replica in cluster.replicas:
        replica.kill()
    await until(lambda: [seen.role for seen in opened.nodes().values()].count("unknown") == 2)

    async def occupy() -> None:
        async with opened.read() as tx:
            await tx.value(sa.text("SELECT pg_sleep(1.5)"))

    readers = [asyncio.create_task(occupy()) for _ in range(2)]
    await asyncio.sleep(0.2)
    with pytest.raises(errors.Unavailable, match="in their place"):
        await count(opened)
    assert told.shed == 1
    await add(opened)  # writes have the other half
    await asyncio.gather(*readers)
    await count(opened)
    await opened.close()


# --- Nodes that fail ----------------------------------------------------------------------------------


async def test_a_killed_replica_takes_no_read_with_it(cluster: Cluster, told: Told) -> None:
    opened = database(cluster, told)
    await opened.open()
    failed = 0
    for number in range(300):
        if number == 100:
            cluster.replicas[0].kill()
        if number == 200:
            cluster.replicas[0].start()
        with session(number + 1):
            try:
                await count(opened)
            except errors.Unavailable:
                failed += 1  # it was under way
    assert failed <= 1
    await until(lambda: opened.nodes()["r1"].role == "replica")
    await opened.close()


async def test_a_replica_that_starts_anew_shows_a_session_nothing_older(cluster: Cluster, told: Told) -> None:
    """Its recovery begins further back. What was known of it before, and its connections, count no more."""
    opened = database(cluster, told)
    await opened.open()
    replica = cluster.replicas[0]
    await until(lambda: opened.nodes()["r1"].role == "replica")
    before = opened.nodes()["r1"].run
    victim = replica.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'outgrow look'")[0][0]
    os.kill(victim, signal.SIGKILL)  # all its processes start anew, but the first
    await until(
        lambda: opened.nodes()["r1"].run not in (0, before) and opened.nodes()["r1"].role == "replica"
    )
    with session() as scope:
        scope.bookmark.saw("0", before)
        await count(opened)
        assert told.reads["primary", "moved"] == 1
    await opened.close()


async def test_writes_wait_for_the_new_primary_and_positions_before_it_stay_valid(
    cluster: Cluster, told: Told
) -> None:
    opened = database(cluster, told, checkout_timeout_s=15.0)
    await opened.open()
    with session() as scope:
        await add(opened)
        before = await count(opened)
        await answered(scope)
        cluster.settle()
        cluster.primary.kill()
        writing = asyncio.create_task(add(opened))
        await asyncio.sleep(0.3)
        assert not writing.done()
        assert await count(opened) == before, "reads go on"
        await asyncio.to_thread(cluster.replicas[0].promote)
        # As Patroni has it do at once. Until then nobody knows whether it has shown what is lost.
        await asyncio.to_thread(cluster.replicas[1].follow, cluster.replicas[0])
        promoted = time.monotonic()
        await writing
        assert time.monotonic() - promoted < 1.0
        assert await count(opened) == before + 1
        assert scope.bookmark.positions["0"].timeline == 2
    assert told.failovers == [("r1", 2)] and told.lost == 0
    await opened.close()


async def test_a_lost_write_is_told_once(cluster: Cluster, told: Told) -> None:
    opened = database(cluster, told, checkout_timeout_s=15.0)
    await opened.open()
    with session() as scope:
        await add(opened)
        cluster.settle()
        survived = await count(opened, "strong")
        for replica in cluster.replicas:
            replica.set("primary_conninfo", "host=127.0.0.1 port=1")
        await until(lambda: not cluster.primary.execute("SELECT 1 FROM pg_stat_replication"))
        await add(opened)
        assert await count(opened) == survived + 1
        cluster.primary.kill()
        await asyncio.to_thread(cluster.replicas[1].promote)
        with pytest.raises(errors.LostWrite):
            async with opened.write():
                pass
        assert scope.restarted
        scope.bookmark.positions["0"] = Position(1, 1 << 40)
        with pytest.raises(errors.LostWrite):
            async with opened.read():
                pass
        assert await count(opened) == survived
        await add(opened)
        assert await count(opened) == survived + 1
    assert told.lost == 2
    await opened.close()


async def test_an_old_primary_that_wakes_up_gets_no_block(cluster: Cluster, told: Told) -> None:
    opened = database(cluster, told, checkout_timeout_s=15.0)
    await opened.open()
    await add(opened)
    cluster.settle()
    frozen = cluster.primary.freeze()
    try:
        await asyncio.to_thread(cluster.replicas[0].promote)
        await until(lambda: opened.nodes()["r1"].role == "primary")
        await add(opened)
        await add(opened)
    finally:
        cluster.primary.thaw(frozen)
    await until(lambda: opened.nodes()["primary"].role == "primary")
    for _ in range(20):
        await add(opened)
        await count(opened, "strong")
    assert not [node for node, _ in told.reads if node == "primary"]
    (row,) = cluster.primary.execute("SELECT count(*) FROM things")
    (new,) = cluster.replicas[0].execute("SELECT count(*) FROM things")
    assert new[0] == row[0] + 22
    await opened.close()


async def test_what_waits_on_a_frozen_primary_is_told_when_another_is_there(
    cluster: Cluster, told: Told
) -> None:
    opened = database(cluster, told, checkout_timeout_s=15.0)
    await opened.open()
    await add(opened)
    cluster.settle()
    begun = asyncio.Event()

    async def write() -> None:
        async with opened.write() as tx:
            begun.set()
            await asyncio.sleep(0.1)
            await tx.execute(ADD, id=0)

    stuck = asyncio.create_task(write())
    await begun.wait()
    frozen = cluster.primary.freeze()
    try:
        waiting = asyncio.create_task(add(opened))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(cluster.replicas[0].promote)
        with pytest.raises(errors.Unavailable):
            await asyncio.wait_for(stuck, 5)
        await asyncio.wait_for(waiting, 5)  # nothing of it was done yet: it is done on the new one
    finally:
        cluster.primary.thaw(frozen)
    await opened.close()


async def test_what_an_old_primary_acknowledges_after_a_pause_is_of_unknown_outcome(
    cluster: Cluster, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgrow.runtime.database.watch.LOOK_S", 60.0)  # nobody has noticed yet
    opened = database(cluster, told)
    await opened.open()
    await until(lambda: all(seen.role != "unknown" for seen in opened.nodes().values()))
    # A look that was late to begin may notice it all the same: then the block is cut off, likewise unknown.
    with pytest.raises(errors.OutcomeUnknown, match=r"promoted meanwhile|connection was lost"):
        async with opened.write() as tx:
            await tx.execute(ADD, id=next(_numbers))
            await asyncio.to_thread(cluster.replicas[0].promote)
            await asyncio.sleep(0.3)
    assert opened.nodes()["r1"].role == "primary"
    await add(opened)
    await opened.close()


async def test_a_commit_that_did_not_wait_for_its_replica_is_told(cluster: Cluster, told: Told) -> None:
    alone: list[str] = []
    told.events.commit_unreplicated.subscribe(alone.append)
    opened = database(cluster, told)
    await opened.open()
    await add(opened)
    cluster.primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    cluster.primary.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)
    writing = asyncio.create_task(add(opened))
    waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await until(lambda: bool(cluster.primary.execute(waiting)))
    await writing
    assert alone == ["primary"]
    cluster.primary.execute("ALTER SYSTEM RESET synchronous_standby_names")
    cluster.primary.execute("SELECT pg_reload_conf()")
    await opened.close()


async def test_a_commit_that_is_not_answered_is_of_unknown_outcome(cluster: Cluster, told: Told) -> None:
    outcomes: list[str] = []
    told.events.transaction_finished.subscribe(lambda node, outcome, seconds: outcomes.append(outcome))
    opened = database(cluster, told)
    await opened.open()
    cluster.primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    cluster.primary.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)
    writing = asyncio.create_task(add(opened))
    stuck = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await until(lambda: bool(cluster.primary.execute(stuck)))
    cluster.primary.kill()
    with pytest.raises(errors.OutcomeUnknown) as unknown:
        await writing
    assert unknown.value.retryable and outcomes == ["unknown"]
    await opened.close()


async def test_a_process_that_starts_later_knows_where_the_timeline_was_left(
    cluster: Cluster, told: Told
) -> None:
    cluster.settle()
    await asyncio.to_thread(cluster.replicas[0].promote)
    (row,) = cluster.replicas[0].execute("SELECT pg_read_file('pg_wal/00000002.history')")
    end = lsn(row[0].split()[1])
    cluster.primary.kill()
    opened = database(cluster, told)
    await opened.open()
    await until(lambda: opened.nodes()["r1"].role == "primary")
    with session() as scope:
        scope.bookmark.raise_to("0", Position(1, end))
        await count(opened)
        scope.bookmark.restart("0", Position(1, end + 1))
        with pytest.raises(errors.LostWrite):
            await count(opened)
    await opened.close()


async def test_servers_that_do_not_tell_where_it_was_left_are_believed_nothing(
    own_cluster: OwnCluster, told: Told
) -> None:
    watched, late = database(own_cluster, told), database(own_cluster, told)
    await watched.open()
    await until(lambda: watched.nodes()["r1"].role == "replica")
    own_cluster.primary.kill()
    await asyncio.to_thread(own_cluster.replicas[0].promote)
    await until(lambda: watched.nodes()["r1"].role == "primary")
    await late.open()
    await until(lambda: late.nodes()["r1"].role == "primary")
    with session() as scope:
        scope.bookmark.raise_to("0", Position(1, 1))
        await count(watched)
        scope.bookmark.seen.clear()
        scope.bookmark.restart("0", Position(1, 1))
        with pytest.raises(errors.LostWrite):
            await count(late)
        await count(late)
    await watched.close()
    await late.close()


# --- Cache --------------------------------------------------------------------------------------------


async def test_what_a_late_replica_shows_is_not_kept_beyond_its_invalidation(
    db: Database, shared: Cluster
) -> None:
    """Another session loads after the writer has invalidated, when no entry remembers the tag any more."""
    writer = Writer()
    cache = Cache(CacheSettings(), Events(), position=lambda: db.position, writer=writer)
    db._shard.writer.id = writer.id

    async def load() -> int:
        return await count(db)

    async def eventually() -> int:
        return await count(db, "eventual")

    shared.delay(0.5)
    with session(1):
        before = await cache.get("count", load=load, tags=["things"])
    with session(2) as writing:
        async with db.write() as tx:
            await tx.execute(ADD, id=next(_numbers))
            cache.invalidate("things")
        assert not writing.bookmark.demands(writer), "it trusts this process's cache"
    with session(3):
        assert await cache.get("other", load=eventually, tags=["things"]) == before, "so it asked"
        assert await cache.get("count", load=load, tags=["things"]) == before + 1
    with session(4) as reading:
        reading.bookmark.merge(writing.bookmark)
        assert await cache.get("other", load=load, tags=["things"]) == before + 1
        assert await cache.get("count", load=load, tags=["things"]) == before + 1


async def test_an_entry_is_as_old_as_the_replica_that_it_was_read_from(db: Database, shared: Cluster) -> None:
    cache = Cache(CacheSettings(), Events(), position=lambda: db.position)

    async def load() -> int:
        return await count(db)

    shared.delay(0.5)
    with session(1) as writing:  # of another process: its cache is another one
        async with db.write() as tx:
            await tx.execute(ADD, id=next(_numbers))
            tx.after_commit(lambda position: None, ("things",))
    with session(2):
        before = await cache.get("count", load=load, tags=["things"])
    with session(3) as reading:
        reading.bookmark.merge(writing.bookmark)
        assert await cache.get("count", load=load, tags=["things"]) == before + 1

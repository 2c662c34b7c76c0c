"""One suite for every database: what a block promises, it promises on all of them."""

import asyncio
import datetime
import time
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from outgrow import errors
from outgrow.endpoints import Database as Settings
from outgrow.endpoints import Shard
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Position
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids
from outgrow.runtime.scope import Message, Scope
from tests.support.pgbouncer import node

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgres", "pgbouncer"], indirect=True)

metadata = sa.MetaData()
things = sa.Table(
    "things",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("parent", sa.BigInteger, sa.ForeignKey("things.id")),
    sa.Column("at", sa.DateTime),
    sa.Column("extra", sa.JSON),
    sa.Column("good", sa.Boolean),
    sa.Column("size", sa.Integer, sa.CheckConstraint("size >= 0", name="size_not_negative")),
)
ADD = sa.insert(things)
GET = sa.select(things).where(things.c.id == sa.bindparam("id"))
COUNT = sa.select(sa.func.count()).select_from(things)
NAMES = sa.select(things.c.id, things.c.name).order_by(things.c.id)
RENAME = sa.update(things).where(things.c.id == sa.bindparam("key")).values(name=sa.bindparam("new_name"))
SOME = (
    sa.select(things.c.id).where(things.c.id.in_(sa.bindparam("ids", expanding=True))).order_by(things.c.id)
)
MESSAGES = sa.text("SELECT count(*) FROM outgrow_outbox")


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]


async def create_things(url: str) -> None:
    """The table, by a way that the block under test has no part in."""
    if url.startswith("sqlite"):
        engine = sa.create_engine(url)
        metadata.create_all(engine)
        engine.dispose()
    else:
        from sqlalchemy.ext.asyncio import create_async_engine

        remote = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
        async with remote.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await remote.dispose()


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    await migrate(database_url, None)
    await create_things(database_url)
    database = open_database(database_url)
    await database.open()
    yield database
    await database.close()


def open_database(url: str, events: Events | None = None, **settings: object) -> Database:
    engine = "sqlite" if url.startswith("sqlite") else "postgres"
    return Database(
        Settings(engine=engine, shards=(Shard("0", (node(url),)),), checkout_timeout_s=1.0, **settings),  # type: ignore[arg-type]
        passwords={},
        events=events or Events(),
        ids=Ids(),
        headers=lambda: "{}",
    )


async def test_what_is_written_is_read_with_its_types(db: Database) -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000)
    async with db.write() as tx:
        changed = await tx.execute(ADD, id=1, name="a", at=moment, extra={"x": [1, None]}, good=True, size=3)
    assert changed == 1
    async with db.read() as tx:
        row = await tx.one(GET, id=1)
        assert await tx.one(GET, id=2) is None
        assert await tx.value(COUNT) == 1
    assert row is not None
    assert (row.id, row["name"], row.at, row.extra, row.good) == (1, "a", moment, {"x": [1, None]}, True)
    assert list(row.keys())[:2] == ["id", "name"] and row[0] == 1 and len(row) == 7
    with pytest.raises(AttributeError, match="no column 'nope'"):
        _ = row.nope


async def test_many_all_and_lists(db: Database) -> None:
    async with db.write() as tx:
        await tx.many(ADD, [{"id": n, "name": f"n{n}"} for n in range(250)])
        await tx.many(ADD, [])
    async with db.read() as tx:
        assert [row.id for row in await tx.all(SOME, ids=[5, 3, 999])] == [3, 5]
        assert await tx.all(SOME, ids=[]) == []
    rows = await db.scatter(NAMES, order_by=("id", "asc"), limit=3)
    assert [row.name for row in rows] == ["n0", "n1", "n2"]


async def test_an_exception_rolls_back(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.write() as tx:
            await tx.execute(ADD, id=1, name="a")
            raise ZeroDivisionError
    async with db.read() as tx:
        assert await tx.value(COUNT) == 0


async def test_a_read_block_cannot_write(db: Database) -> None:
    with pytest.raises(errors.ReadOnlyViolation):
        async with db.read() as tx:
            await tx.execute(ADD, id=1, name="a")
    with pytest.raises(errors.ReadOnlyViolation):
        async with db.read(snapshot=True) as tx:
            await tx.execute(ADD, id=1, name="a")
    async with db.write() as tx:
        await tx.execute(ADD, id=1, name="a")


async def test_constraints_have_the_same_errors_everywhere(db: Database) -> None:
    async with db.write() as tx:
        await tx.execute(ADD, id=1, name="a")
    with pytest.raises(errors.UniqueViolation) as unique:
        async with db.write() as tx:
            await tx.execute(ADD, id=2, name="a")
    assert unique.value.columns == ("name",)
    with pytest.raises(errors.NotNullViolation) as missing:
        async with db.write() as tx:
            await tx.execute(ADD, id=2, name=None)
    assert missing.value.columns == ("name",)
    with pytest.raises(errors.CheckViolation) as check:
        async with db.write() as tx:
            await tx.execute(ADD, id=2, name="b", size=-1)
    assert check.value.constraint == "size_not_negative"
    with pytest.raises(errors.ForeignKeyViolation):
        async with db.write() as tx:
            await tx.execute(ADD, id=2, name="b", parent=77)
    assert not unique.value.retryable


@pytest.mark.parametrize("given", [{"id": 2**70, "name": "a"}, {"id": 1, "name": "\ud800"}])
async def test_a_value_that_no_database_can_hold_is_a_database_error(
    db: Database, given: dict[str, object]
) -> None:
    with pytest.raises(errors.DatabaseError):
        async with db.write() as tx:
            await tx.execute(ADD, **given)
    with pytest.raises(errors.DatabaseError):
        async with db.write() as tx:
            await tx.many(ADD, [given])
    if given["id"] != 1:
        async with db.read() as tx:
            with pytest.raises(errors.DatabaseError):
                await tx.one(GET, id=given["id"])
            assert await tx.value(COUNT) == 0


async def test_a_failed_statement_dooms_the_block(db: Database) -> None:
    async with db.write() as tx:
        await tx.execute(ADD, id=1, name="a")
    with pytest.raises(errors.Conflict, match="rolled back"):
        async with db.write() as tx:
            await tx.execute(ADD, id=2, name="b")
            with pytest.raises(errors.UniqueViolation):
                await tx.execute(ADD, id=3, name="a")
    async with db.read() as tx:
        assert await tx.value(COUNT) == 1


async def test_a_savepoint_fails_alone(db: Database) -> None:
    async with db.write() as tx:
        await tx.execute(ADD, id=1, name="a")
        with pytest.raises(errors.UniqueViolation):
            async with tx.savepoint():
                tx.stage(Message("t", b"undone"))
                await tx.execute(ADD, id=2, name="b")
                await tx.execute(ADD, id=3, name="a")
        async with tx.savepoint():
            await tx.execute(ADD, id=4, name="d")
    async with db.read() as tx:
        assert [row.id for row in await tx.all(NAMES)] == [1, 4]
        assert await tx.value(MESSAGES) == 0


async def test_a_snapshot_sees_one_moment(db: Database) -> None:
    async with db.read(snapshot=True) as tx:
        assert await tx.value(COUNT) == 0
        async with db.write() as other:
            await other.execute(ADD, id=1, name="a")
        assert await tx.value(COUNT) == 0
    async with db.read() as tx:
        assert await tx.value(COUNT) == 1


async def test_the_session_shares_the_transaction(db: Database) -> None:
    async with db.write() as tx:
        await tx.execute(ADD, id=1, name="fast")
        assert (await tx.session.get(Thing, 1)).name == "fast"  # type: ignore[union-attr]
        tx.session.add(Thing(id=2, name="orm"))
    async with db.read() as tx:
        assert [row.name for row in await tx.all(NAMES)] == ["fast", "orm"]
        assert (await tx.session.scalars(sa.select(Thing.name).order_by(Thing.id))).all() == ["fast", "orm"]
    with pytest.raises(ZeroDivisionError):
        async with db.write() as tx:
            tx.session.add(Thing(id=3, name="gone"))
            await tx.session.flush()
            raise ZeroDivisionError
    async with db.read() as tx:
        assert await tx.value(COUNT) == 2


async def test_the_session_does_not_end_the_transaction(db: Database) -> None:
    async with db.write() as tx:
        with pytest.raises(errors.Misuse, match="block"):
            await tx.session.commit()
        with pytest.raises(errors.Misuse, match="block"):
            await tx.session.rollback()


async def test_a_session_savepoint_fails_alone(db: Database) -> None:
    async with db.write() as tx:
        tx.session.add(Thing(id=1, name="a"))
        await tx.session.flush()
        with pytest.raises(sa.exc.IntegrityError):
            async with tx.session.begin_nested():
                tx.session.add(Thing(id=2, name="a"))
    async with db.read() as tx:
        assert await tx.value(COUNT) == 1


async def test_positions_grow_with_each_commit_and_raise_the_bookmark(db: Database) -> None:
    scope = Scope()
    token = request.current.set(scope)
    try:
        positions: list[Position] = []
        for number in range(3):
            async with db.write() as tx:
                await tx.execute(ADD, id=number, name=str(number))
                tx.after_commit(positions.append, (f"thing:{number}",))
            assert scope.bookmark.position("0") == positions[-1] == db.position
    finally:
        request.current.reset(token)
    assert positions == sorted(set(positions))
    assert scope.wrote and scope.bookmark.changed
    assert scope.bookmark.tag_floor("thing:2") == positions[2]


async def test_effects_happen_only_after_a_commit(db: Database) -> None:
    seen: list[Position] = []
    with pytest.raises(ZeroDivisionError):
        async with db.write() as tx:
            tx.after_commit(seen.append)
            raise ZeroDivisionError
    assert seen == []


async def test_messages_are_stored_with_the_transaction_or_not_at_all(db: Database) -> None:
    async with db.write() as tx:
        tx.stage(Message("t", b"one"))
        tx.stage(Message("t", b"two", key="k"))
        tx.stage(Message("t", b"two again", key="k"))
    with pytest.raises(ZeroDivisionError):
        async with db.write() as tx:
            tx.stage(Message("t", b"three"))
            raise ZeroDivisionError
    async with db.read() as tx:
        assert await tx.value(MESSAGES) == 2


async def test_a_block_that_has_ended_is_refused(db: Database) -> None:
    async with db.write() as tx:
        pass
    with pytest.raises(errors.UnitOfWorkClosed):
        await tx.execute(ADD, id=1, name="a")
    with pytest.raises(errors.UnitOfWorkClosed):
        tx.stage(Message("t", b""))
    with pytest.raises(errors.UnitOfWorkClosed):
        _ = tx.session


async def test_concurrent_writers_lose_nothing(db: Database) -> None:
    async with db.write() as tx:
        await tx.execute(ADD, id=1, name="counter", size=0)
    raise_size = sa.update(things).where(things.c.id == 1).values(size=things.c.size + 1)

    async def add() -> None:
        async with db.write() as tx:
            await tx.execute(raise_size)

    await asyncio.gather(*(add() for _ in range(50)))
    async with db.read() as block:
        row = await block.one(GET, id=1)
    assert row is not None
    assert row.size == 50


async def test_a_cancelled_block_leaves_nothing_behind(db: Database) -> None:
    started = asyncio.Event()

    async def write() -> None:
        async with db.write() as tx:
            await tx.execute(ADD, id=1, name="a")
            started.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(write())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.write() as tx:
        assert await tx.value(COUNT) == 0
        await tx.execute(ADD, id=1, name="a")


@pytest.mark.parametrize("delay_s", [0.0, 0.0002, 0.0005, 0.001, 0.003])
async def test_cancelling_a_commit_never_separates_it_from_its_effects(db: Database, delay_s: float) -> None:
    effects: list[Position] = []

    async def write() -> None:
        async with db.write() as tx:
            await tx.execute(ADD, id=1, name="a")
            tx.after_commit(effects.append)

    task = asyncio.create_task(write())
    await asyncio.sleep(delay_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with db.write() as tx:  # waits for whatever is still under way
        committed = await tx.value(COUNT)
    for _ in range(100):
        if len(effects) == committed:
            break
        await asyncio.sleep(0.01)
    assert len(effects) == committed


async def test_exhausted_connections_are_told_and_come_back(database_url: str) -> None:
    await migrate(database_url, None)
    database = open_database(database_url, pool=1)
    await database.open()
    async with database.write():
        with pytest.raises(errors.Unavailable) as waited:
            async with database.write():
                pass
        assert waited.value.retryable
    async with database.write():
        pass
    await database.close()


async def test_a_statement_that_runs_too_long_is_cancelled(database_url: str) -> None:
    await migrate(database_url, None)
    database = open_database(database_url, statement_timeout_s=0.2)
    await database.open()
    endless = sa.text(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000000000)"
        " SELECT count(*) FROM n"
    )
    for block in (database.read, database.write):
        with pytest.raises(errors.StatementTimeout, match=r"0\.2 s"):
            async with block() as tx:
                await tx.value(endless)
    await database.close()


async def test_a_slow_query_does_not_stop_the_others(db: Database) -> None:
    slow = sa.text(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000)"
        " SELECT count(*) FROM n"
    )
    done: list[str] = []

    async def read(statement: sa.TextClause, name: str) -> None:
        async with db.read() as tx:
            await tx.value(statement)
        done.append(name)

    await asyncio.gather(read(slow, "slow"), *(read(sa.text("SELECT 1"), "quick") for _ in range(5)))
    assert done[-1] == "slow"


async def test_a_known_query_that_turns_slow_or_fails_is_told_once(database_url: str) -> None:
    await migrate(database_url, None)
    events = Events()
    database = open_database(database_url, events)
    await database.open()
    numbers = sa.text(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < CAST(:most AS bigint))"
        " SELECT count(*) FROM n"
    )
    async with database.read() as tx:
        assert await tx.value(numbers, most=3) == 3
    told: list[tuple[object, ...]] = []
    events.query_finished.subscribe(lambda *values: told.append(values))
    started = time.perf_counter()
    async with database.read() as tx:
        assert await tx.value(numbers, most=1_000_000) == 1_000_000
    took = time.perf_counter() - started
    with pytest.raises(errors.DatabaseError):
        async with database.read() as tx:
            await tx.value(numbers, most=2**70)
    (node, label, seconds, error), failed = told
    assert (node, label, error) == ("db", "WITH text", None)
    assert took / 2 < seconds <= took  # type: ignore[operator]
    assert failed[3] == "DatabaseError"
    with pytest.raises(errors.UnitOfWorkClosed):
        await tx.value(numbers, most=3)
    await database.close()


async def test_missing_tables_of_our_own_are_told(database_url: str) -> None:
    database = open_database(database_url)
    await database.open()
    with pytest.raises(errors.SchemaMissing, match="outgrow migrate"):
        async with database.write() as tx:
            tx.stage(Message("t", b""))
    await database.close()


async def test_a_wrong_level_is_told(db: Database) -> None:
    with pytest.raises(errors.Misuse, match='"strong", "session", "eventual"'):
        db.read(level="stronk")


async def test_the_check_says_what_answers(db: Database) -> None:
    assert await db.check()
    assert db.figures()["db"]["used"] == 0

"""Code written for SQLAlchemy alone: its sessions are routed, and behave as it expects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from outgrow import errors
from outgrow.runtime import scope as request
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.scope import Scope
from tests.contract.test_replication import Cluster, Told, database, until
from tests.contract.test_transact import open_database
from tests.support.replicas import replicated


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
    text: Mapped[str]


CREATE = sa.text("CREATE TABLE notes (id integer PRIMARY KEY, text text NOT NULL)")


@pytest.fixture(params=["sqlite", "postgres", "pgbouncer"])
async def db(request: pytest.FixtureRequest, tmp_path: object) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
    else:
        server = request.getfixturevalue("pooler" if request.param == "pgbouncer" else "postgres_server")
        url = server.create_database()
    await migrate(url, None)
    opened = open_database(url, checkout_timeout_s=1.0, pool=2)
    await opened.open()
    async with opened.write() as tx:
        await tx.execute(CREATE)
    yield opened
    await opened.close()


async def texts(session: AsyncSession) -> list[str]:
    return list((await session.scalars(sa.select(Note.text).order_by(Note.id))).all())


async def test_what_it_commits_is_there_and_what_it_rolls_back_is_not(db: Database) -> None:
    make = db.sessionmaker()
    async with make() as session:
        session.add(Note(id=1, text="one"))
        await session.commit()
        session.add(Note(id=2, text="two"))
        await session.flush()
        assert await texts(session) == ["one", "two"]
        await session.rollback()
        assert await texts(session) == ["one"]
        session.add(Note(id=3, text="left alone"))
        await session.flush()
    async with make.begin() as session:
        assert await texts(session) == ["one"]
        session.add(Note(id=4, text="four"))
    async with make() as session, session.begin():
        (await session.get_one(Note, 4)).text = "changed"
    async with make() as session:
        assert await texts(session) == ["one", "changed"]


async def test_it_takes_no_connection_with_it(db: Database) -> None:
    make = db.sessionmaker(expire_on_commit=False)
    for number in range(10):
        async with make() as session:
            await texts(session)
            session.add(Note(id=number, text=""))
            if number % 2:
                await session.commit()
        with pytest.raises(ZeroDivisionError):
            async with make.begin() as session:
                await texts(session)
                session.add(Note(id=100, text=""))
                await session.flush()
                raise ZeroDivisionError
    async with make() as session:
        assert len(await texts(session)) == 5
    assert sum(figures["used"] for figures in db.figures().values()) == 0


async def test_its_errors_are_those_of_sqlalchemy_and_leave_it_usable(db: Database) -> None:
    async with db.sessionmaker()() as session:
        session.add(Note(id=1, text="one"))
        await session.commit()
        session.add(Note(id=1, text="again"))
        session.expunge_all()
        session.add(Note(id=1, text="again"))
        with pytest.raises(sa.exc.IntegrityError):
            await session.commit()
        await session.rollback()
        session.add(Note(id=2, text="two"))
        await session.commit()
        assert await texts(session) == ["one", "two"]
        async with session.begin_nested():
            session.add(Note(id=3, text="three"))
        await session.commit()
        assert len(await texts(session)) == 3


async def test_what_belongs_to_the_transaction_comes_about_with_it(db: Database) -> None:
    done: list[str] = []
    async with db.sessionmaker()() as session:
        session.add(Note(id=1, text="one"))
        await session.flush()
        unit = request.unit_of_work.get()
        assert unit is not None, "messages and invalidations belong to it"
        unit.after_commit(lambda position: done.append("effect"))
        await session.commit()
    assert done == ["effect"] and request.unit_of_work.get() is None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with replicated(2, Cluster) as made:
        made.primary.execute(str(CREATE))
        made.primary.execute("GRANT ALL ON notes TO app")
        made.settle()
        yield made


async def test_it_reads_from_replicas_until_it_writes(cluster: Cluster) -> None:
    told = Told()
    opened = database(cluster, told)
    await opened.open()
    await until(lambda: all(seen.role != "unknown" for seen in opened.nodes().values()))
    cluster.delay(0.5)
    make = opened.sessionmaker()
    token = request.current.set(Scope())
    try:
        async with make() as session:
            assert await texts(session) == await texts(session) == []
            assert {node for node, _ in told.reads} <= {"r1", "r2"} and sum(told.reads.values()) == 1
            session.add(Note(id=1, text="one"))
            assert await texts(session) == ["one"], "flushed first"
            await session.commit()
            assert await texts(session) == ["one"], "its own write, which no replica has yet"
        assert told.reads["primary", "behind"] == 1
        async with make() as session:
            await session.execute(sa.select(Note).with_for_update())
            await session.execute(sa.text("SELECT 1"))
        assert sum(told.reads.values()) == 2
    finally:
        request.current.reset(token)
    async with opened.sessionmaker(level="strong")() as session:
        assert await texts(session) == ["one"]
    with pytest.raises(errors.Misuse):
        async with opened.sessionmaker(level="weak")() as session:
            await texts(session)
    await opened.close()

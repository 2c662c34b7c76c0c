"""The migration itself, with SQLAlchemy and Alembic (migrate.py is the way in)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Index, create_engine, delete, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.dialects.sqlite.base import SQLiteTypeCompiler
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from outgrow.errors import DatabaseError, Misuse, Unavailable
from outgrow.runtime.database.schema import (
    buffer,
    done,
    metadata,
    migrated,
    outbox,
    position,
    session,
    sqlite_metadata,
)

LOCK = 0x6F757467726F77
"""The advisory lock that all migrations of one PostgreSQL database share ("outgrow")."""

LOCK_WAIT_S = 60.0
"""How long one migration waits for another."""

Told = Callable[[str], None]

# The indexes stand here and not beside their table, because what they say of each dialect loads both.
# What a claim looks for, in its order; dead messages are not in it, so they cost it nothing.
outbox_ready = Index(
    "outgrow_outbox_ready",
    outbox.c.topic,
    outbox.c.available_at,
    outbox.c.id,
    postgresql_where=text("state = 'ready'"),
    sqlite_where=text("state = 'ready'"),
)
outbox_dedupe = Index(
    "outgrow_outbox_dedupe",
    outbox.c.topic,
    outbox.c.dedupe,
    unique=True,
    postgresql_where=text("dedupe is not null and state = 'ready'"),
    sqlite_where=text("dedupe is not null and state = 'ready'"),
)
# What each new session looks for: those that have expired.
session_expires = Index("outgrow_session_expires", session.c.expires_at)
done_at = Index("outgrow_done_at", done.c.at)
# What each get of write-behind looks for; taking reads the whole table, which is small.
buffer_newest = Index(
    "outgrow_buffer_newest", buffer.c.strategy, buffer.c.key, buffer.c.era, buffer.c.turn, buffer.c.seq
)


async def upgrade(
    url: str, directory: Path | None, *, password: str | None, digest: str, told: Told
) -> list[str]:
    """Apply what is missing; returns the revisions applied. Raises like migrate.migrate."""
    try:
        if url.startswith("sqlite"):
            return await asyncio.to_thread(_migrate_sqlite, url, directory, digest, told)
        return await _migrate_postgres(url, password, directory, told)
    except (OSError, OperationalError) as error:
        raise Unavailable(f"the database cannot be migrated: {error}") from error
    except SQLAlchemyError as error:
        raise DatabaseError(f"a migration failed and was rolled back: {error}") from error


class TypeCompiler(SQLiteTypeCompiler):
    """Every integer of SQLite has 64 bits. But a primary key is the number of the row itself only when it is
    called INTEGER; any other is an index beside the table, and a look-up by it takes two searches."""

    def visit_BIGINT(self, type_: Any, **options: Any) -> str:  # noqa: N802
        """What a column of BigInteger is called."""
        return "INTEGER"


def _migrate_sqlite(url: str, directory: Path | None, digest: str, told: Told) -> list[str]:
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={"timeout": LOCK_WAIT_S, "isolation_level": None},
    )
    engine.dialect.type_compiler_instance = TypeCompiler(engine.dialect)
    with engine.connect() as connection:
        _use_wal(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            sqlite_metadata.create_all(connection)
            connection.execute(insert(position).values(one=1, timeline=0, commits=0).on_conflict_do_nothing())
            applied = _upgrade(connection, directory, told)
            connection.execute(delete(migrated))
            connection.execute(insert(migrated).values(digest=digest))
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
    engine.dispose()
    return applied


def _use_wal(connection: Connection) -> None:
    """SQLite's busy time-out does not cover the change of journal mode, which fails at once."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


async def _migrate_postgres(url: str, password: str | None, directory: Path | None, told: Told) -> list[str]:
    import asyncpg

    async def connect() -> Any:
        return await asyncpg.connect(url, password=password, timeout=10)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            return await connection.run_sync(_upgrade, directory, told)
    except asyncpg.PostgresError as error:
        raise Unavailable(f"the database cannot be migrated: {error}") from error
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, directory: Path | None, told: Told) -> list[str]:
    metadata.create_all(connection)
    if directory is None:
        return []
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    if not (directory / "versions").is_dir():
        raise Misuse(f"{directory} has no folder versions/", hint="put the Alembic revision files there")
    config = Config()
    config.set_main_option("script_location", str(directory).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    applied: list[str] = []

    def steps(revision: Any, context: Any) -> Any:
        wanted = script._upgrade_revs("head", revision)
        for step in wanted:
            applied.append(step.revision.revision)
            told(f"migration {step.revision.revision}: {step.revision.doc}")
        return wanted

    try:
        with EnvironmentContext(config, script, fn=steps, destination_rev="head") as environment:
            environment.configure(connection=connection, transactional_ddl=False)
            environment.run_migrations()
    except (CommandError, KeyError) as error:
        raise Misuse(
            f"the revisions in {directory} do not form a chain: {error}",
            hint="each down_revision must name another revision file's revision; the first one's is None",
        ) from error
    return applied

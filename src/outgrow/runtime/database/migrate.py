"""Bring a database to the newest schema: Outgrow's own tables, then the application's migrations.

The application's folder holds Alembic revisions in versions/*.py and nothing else: no env.py, no
alembic.ini. One process migrates at a time; the others wait for it.

    python -m outgrow.runtime.database.migrate

    OUTGROW_ENDPOINTS        where the database is
    OUTGROW_MIGRATIONS       the folder; absent: only Outgrow's own tables
    OUTGROW_MIGRATIONS_URL   the same database, as a role that may create tables
    OUTGROW_SECRETS          its password, in a file that the application does not read
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from outgrow import endpoints
from outgrow.errors import EXIT_TOLD, DatabaseError, Misuse, Unavailable
from outgrow.runtime.database.schema import metadata, position, sqlite_metadata
from outgrow.runtime.failure import tell

LOCK = 0x6F757467726F77
"""The advisory lock that all migrations of one PostgreSQL database share ("outgrow")."""

LOCK_WAIT_S = 60.0
"""How long one migration waits for another."""

Told = Callable[[str], None]


async def migrate(
    url: str, directory: Path | None, *, password: str | None = None, told: Told = lambda line: None
) -> list[str]:
    """Migrate the database at `url`; returns the revisions applied, oldest first.

    `told` hears a line for each step. Raises Unavailable when the database cannot be reached,
    Misuse when a revision file is broken, DatabaseError when a step fails (it is rolled back whole).
    """
    try:
        if url.startswith("sqlite"):
            return await asyncio.to_thread(_migrate_sqlite, url, directory, told)
        return await _migrate_postgres(url, password, directory, told)
    except (OSError, OperationalError) as error:
        raise Unavailable(f"the database cannot be migrated: {error}") from error
    except SQLAlchemyError as error:
        raise DatabaseError(f"a migration failed and was rolled back: {error}") from error


def _migrate_sqlite(url: str, directory: Path | None, told: Told) -> list[str]:
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={"timeout": LOCK_WAIT_S, "isolation_level": None},
    )
    with engine.connect() as connection:
        _use_wal(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            sqlite_metadata.create_all(connection)
            connection.execute(insert(position).values(one=1, timeline=0, commits=0).on_conflict_do_nothing())
            applied = _upgrade(connection, directory, told)
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


def main() -> int:
    """Migrate the application's database; returns the exit code. What failed is told in one line."""
    try:
        document = endpoints.read(os.environ["OUTGROW_ENDPOINTS"])
        secrets_file = os.environ.get("OUTGROW_SECRETS") or document.secrets_file
        passwords = endpoints.read_secrets(secrets_file).passwords if secrets_file else {}
        password = passwords.get("migrations", passwords.get("*"))
        folder = os.environ.get("OUTGROW_MIGRATIONS")
        url = os.environ.get("OUTGROW_MIGRATIONS_URL") or document.database.shards[0].nodes[0].url
        asyncio.run(migrate(url, Path(folder) if folder else None, password=password, told=_say))
    except Exception as error:  # also whatever a revision raises
        tell(error)
        return EXIT_TOLD
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())

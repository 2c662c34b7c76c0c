"""Bring a database to the newest schema: Outgrow's own tables, then the application's migrations.

The application's folder holds Alembic revisions in versions/*.py and nothing else: no env.py, no
alembic.ini. One process migrates at a time; the others wait for it. What a SQLite file holds of it is
known without loading SQLAlchemy and Alembic, whose import is the longest part of a start.

    python -m outgrow.runtime.database.migrate

    OUTGROW_ENDPOINTS        where the database is
    OUTGROW_MIGRATIONS       the folder; absent: only Outgrow's own tables
    OUTGROW_MIGRATIONS_URL   the same database, as a role that may create tables
    OUTGROW_FOLLOW           the tables whose changes the cache follows, with commas; absent: as they are
    OUTGROW_SECRETS          its password, in a file that the application does not read
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from outgrow import __version__, endpoints
from outgrow.errors import EXIT_TOLD
from outgrow.runtime.failure import tell

Told = Callable[[str], None]


async def migrate(
    url: str, directory: Path | None, *, password: str | None = None, told: Told = lambda line: None
) -> list[str]:
    """Migrate the database at `url`; returns the revisions applied, oldest first.

    `told` hears a line for each step. Raises Unavailable when the database cannot be reached,
    Misuse when a revision file is broken, DatabaseError when a step fails (it is rolled back whole).
    """
    if url.startswith("sqlite") and _is_current(url, digest(directory)):
        return []
    from outgrow.runtime.database import upgrade

    return await upgrade.upgrade(url, directory, password=password, digest=digest(directory), told=told)


def digest(directory: Path | None) -> str:
    """Changes when a migration, or Outgrow itself, may have changed."""
    hashed = hashlib.sha256(__version__.encode())
    own = Path(__file__).with_name("schema.py")
    for file in (own, *sorted(directory.glob("versions/*.py") if directory is not None else ())):
        hashed.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return hashed.hexdigest()


def _is_current(url: str, wanted: str) -> bool:
    path = Path(url.removeprefix("sqlite:///"))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT digest FROM outgrow_migrated").fetchone()
            return row is not None and row[0] == wanted
    except sqlite3.Error:  # no file or no table yet; what is really wrong comes up again in earnest
        return False


def main() -> int:
    """Migrate the application's database; returns the exit code. What failed is told in one line."""
    try:
        document = endpoints.read(os.environ["OUTGROW_ENDPOINTS"])
        secrets_file = os.environ.get("OUTGROW_SECRETS") or document.secrets_file
        passwords = endpoints.read_secrets(secrets_file).passwords if secrets_file else {}
        password = passwords.get("migrations", passwords.get("*"))
        folder = os.environ.get("OUTGROW_MIGRATIONS")
        url = os.environ.get("OUTGROW_MIGRATIONS_URL") or document.database.shards[0].nodes[0].url
        asyncio.run(_migrate(url, Path(folder) if folder else None, password))
    except Exception as error:  # also whatever a revision raises
        tell(error)
        return EXIT_TOLD
    return 0


async def _migrate(url: str, directory: Path | None, password: str | None) -> None:
    await migrate(url, directory, password=password, told=_say)
    followed = os.environ.get("OUTGROW_FOLLOW")
    if followed is not None and not url.startswith("sqlite"):
        from outgrow.runtime.database.postgres_publication import publish

        await publish(url, password, [table for table in followed.split(",") if table], _say)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())

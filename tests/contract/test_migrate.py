"""Migrations on every database: all or nothing, once, and one at a time."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from outgrow import errors
from outgrow.runtime.database.migrate import digest, migrate
from tests.contract.test_database import open_database

FIRST = '''"""things"""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("things", sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False))
'''
SECOND = '''"""names"""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("things", sa.Column("name", sa.Text))
'''
BROKEN = '''"""broken"""
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade():
    op.execute("CREATE TABLE half (id bigint)")
    op.execute("SELECT * FROM nowhere")
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001_things.py").write_text(FIRST)
    return versions.parent


async def test_each_revision_is_applied_once(database_url: str, folder: Path) -> None:
    lines: list[str] = []
    assert await migrate(database_url, folder, told=lines.append) == ["0001"]
    assert lines == ["migration 0001: things"]
    (folder / "versions" / "0002_names.py").write_text(SECOND)
    assert await migrate(database_url, folder) == ["0002"]
    assert await migrate(database_url, folder) == []


async def test_a_failing_migration_leaves_nothing(database_url: str, folder: Path) -> None:
    (folder / "versions" / "0002_names.py").write_text(SECOND)
    (folder / "versions" / "0003_broken.py").write_text(BROKEN)
    with pytest.raises(errors.DatabaseError, match="nowhere"):
        await migrate(database_url, folder)
    db = open_database(database_url)
    await db.open()
    with pytest.raises(errors.DatabaseError):
        async with db.read() as tx:
            await tx.all(sa.text("SELECT * FROM things"))
    await db.close()
    (folder / "versions" / "0003_broken.py").unlink()
    assert await migrate(database_url, folder) == ["0001", "0002"]


async def test_several_at_once_wait_for_each_other(database_url: str, folder: Path) -> None:
    applied = await asyncio.gather(*(migrate(database_url, folder) for _ in range(4)))
    assert sorted(applied) == [[], [], [], ["0001"]]


async def test_a_folder_without_versions_is_told(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Misuse, match="versions"):
        await migrate(database_url, tmp_path)


@pytest.mark.filterwarnings("ignore:Revision 0002 referenced")
async def test_a_gap_in_the_revisions_is_told(database_url: str, folder: Path) -> None:
    (folder / "versions" / "0003_broken.py").write_text(BROKEN)
    with pytest.raises(errors.Misuse, match="0002"):
        await migrate(database_url, folder)


async def test_nothing_new_is_seen_without_the_migration_tools(tmp_path: Path, folder: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    await migrate(url, folder)
    before = digest(folder)
    script = f"""
import asyncio, sys
from pathlib import Path
from outgrow.runtime.database.migrate import migrate
print(asyncio.run(migrate({url!r}, Path({str(folder)!r}))), "sqlalchemy" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["[]", "False"]
    (folder / "versions" / "0002_names.py").write_text(SECOND)
    assert digest(folder) != before
    assert await migrate(url, folder) == ["0002"]


async def test_an_id_of_64_bits_is_the_number_of_the_row_itself(tmp_path: Path, folder: Path) -> None:
    await migrate(f"sqlite:///{tmp_path}/test.db", folder)
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute(f"INSERT INTO things (id) VALUES ({2**62})")
        assert connection.execute("SELECT rowid FROM things").fetchone() == (2**62,)

"""What stands beside the code: the migrations make the tables it names, the stage files are one app's."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from outgrow.runtime.database.migrate import migrate
from outgrow.topology.model import STAGES as STAGES_OF_THE_LADDER
from outgrow.topology.parse import parse_file
from tests.example.world import MIGRATIONS, ROOT, World

STAGES = sorted((ROOT / "stages").glob("*.toml"))


@pytest.mark.asyncio(loop_scope="session")
async def test_the_tables_are_those_that_the_migrations_make(world: World, tmp_path: Path) -> None:
    await migrate(f"sqlite:///{tmp_path}/made.db", MIGRATIONS)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/made.db")
    made = sa.inspect(engine)
    metadata = world.modules["tables"].metadata
    assert set(metadata.tables) == {
        name for name in made.get_table_names() if not name.startswith(("outgrow_", "alembic_"))
    }
    for table in metadata.sorted_tables:
        columns = {column["name"]: column["nullable"] for column in made.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}, table.name
        key = made.get_pk_constraint(table.name)["constrained_columns"]
        assert key == [column.name for column in table.primary_key], table.name
    engine.dispose()


def test_the_project_starts_at_stage_1() -> None:
    assert (ROOT / "outgrow.toml").read_text() == (ROOT / "stages" / "01.toml").read_text()


@pytest.mark.parametrize("path", STAGES, ids=[path.stem for path in STAGES])
def test_a_stage_file_is_its_stage_and_the_same_application(path: Path) -> None:
    first, stage = parse_file(STAGES[0]), parse_file(path)
    assert stage.stage == STAGES_OF_THE_LADDER[int(path.stem) - 1]
    assert stage.application.servers == (1 if int(path.stem) < 3 else 2)
    assert replace(stage.application, servers=1) == first.application


def test_only_public_names_are_used() -> None:
    """`from outgrow import ...`, never a module of it."""
    for path in (ROOT / "conduit").rglob("*.py"):
        assert "outgrow." not in path.read_text().replace("outgrow.toml", ""), path

"""The seed function: as much as asked for, the same each time, and every count right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.example.truth import assert_counts
from tests.example.world import World, running, settings_for, settle

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL = ["--users", "30", "--articles", "60", "--favorites", "200", "--comments", "80", "--follows", "90"]
TABLES = ("users", "articles", "favorites", "comments", "follows")


async def sizes(world: World) -> list[int]:
    return [(await world.truth(f"SELECT count(*) FROM {table}"))[0][0] for table in TABLES]


async def test_as_much_as_asked_for(
    empty_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(settings_for(empty_database, "memory", tmp_path)) as world:
        seed = world.modules["seed"].seed
        await seed(world.og, SMALL)
        assert await sizes(world) == [30, 60, 200, 80, 90]
        assert "articles: 60\n" in capsys.readouterr().out
        first = await _people(world)
        await assert_counts(world)
        settle(empty_database)
        assert len((await world.stranger.list(limit=100))[0]) == 60
        assert (await world.stranger.get("/api/tags"))["tags"][0] == "programming"
        await _log_in(world, first[0][1])
        await seed(world.og, SMALL)  # more of the same
        assert await sizes(world) == [60, 120, 400, 160, 180]
        await assert_counts(world)


async def test_the_same_number_makes_the_same_world(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings_for(empty_database, "memory", tmp_path)) as world:
        seed = world.modules["seed"]
        found: list[tuple[Any, ...]] = []

        async def keep(tx: Any, what: str, statement: Any, rows: Any) -> None:
            found.extend((what, row.get("username"), row.get("body")) for row in rows)

        async def made(number: str) -> list[tuple[Any, ...]]:
            found.clear()
            await seed.seed(world.og, [*SMALL, "--seed", number])
            return found.copy()

        monkeypatch.setattr(seed, "_put", keep)
        assert await made("1") == await made("1") != await made("2")


async def test_of_few_people_less_is_usual(empty_database: str, tmp_path: Path) -> None:
    async with running(settings_for(empty_database, "memory", tmp_path)) as world:
        await world.modules["seed"].seed(world.og, ["--users", "50", "--articles", "8", "--comments", "5"])
        assert await sizes(world) == [50, 8, 100, 5, 612]
        await assert_counts(world)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--users", "-1"], "is no number"),
        (["--users", "0"], "nobody is there"),
        (["--articles", "0"], "nothing to love"),
        (["--users", "2", "--follows", "2"], "more than half of all"),
        (["--users", "2", "--follows", "1", "--articles", "1", "--favorites", "2"], "more than half of all"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
async def test_sizes_that_make_no_sense(
    world: World, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        await world.modules["seed"].seed(world.og, arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


async def _people(world: World) -> list[tuple[Any, ...]]:
    return await world.truth("SELECT username, email FROM users ORDER BY id")


async def _log_in(world: World, email: str) -> None:
    await world.stranger.post("/api/users/login", {"user": {"email": email, "password": "password"}})

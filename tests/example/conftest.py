"""The example on each database, with the cache and without: every test of this folder runs on all four."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from outgrow.runtime.database.migrate import migrate
from tests.example.world import MIGRATIONS, Person, World, running, settings_for
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database, to be copied."""
    url = postgres_server.create_database()
    asyncio.run(migrate(url, MIGRATIONS))
    return url.rpartition("/")[2]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "conduit.db"
    asyncio.run(migrate(f"sqlite:///{path}", MIGRATIONS))
    return path


def new_database(kind: str, request: pytest.FixtureRequest, directory: Path) -> str:
    """The URL of a migrated database without a row."""
    if kind == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        (directory / "conduit.db").write_bytes(template.read_bytes())
        return f"sqlite:///{directory}/conduit.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database(request.getfixturevalue("postgres_template"))


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database of each kind for all tests: they use names of their own."""
    return new_database(request.param, request, tmp_path_factory.mktemp("database"))


@pytest.fixture
def empty_database(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One of the same kind that nobody has used."""
    return new_database("sqlite" if database.startswith("sqlite") else "postgres", request, tmp_path)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["memory", "off"])
async def world(
    database: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """The running application."""
    settings = settings_for(database, request.param, tmp_path_factory.mktemp("settings"))
    async with running(settings) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="session")
async def ann(world: World) -> Person:
    """A user of this test."""
    return await world.register()


@pytest_asyncio.fixture(loop_scope="session")
async def bob(world: World) -> Person:
    """Another one."""
    return await world.register()

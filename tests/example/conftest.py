"""The example on each database, with the cache and without: every test of this folder runs on
all of them, and with a shared cache over replicas that are half a second late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from outgrow.runtime.database.migrate import migrate
from tests.example.world import MIGRATIONS, REPLICATED, SHARED, Person, World, running, settings_for
from tests.support.cache import CacheServer
from tests.support.postgres import PostgresServer
from tests.support.replicas import Replicated, replicated


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over replicas once is enough: with a shared cache, which makes it harder to be right."""
    many = [item for item in items if _over_replicas_without_cache(item)]
    if many:
        config.hook.pytest_deselected(items=many)
        items[:] = [item for item in items if not _over_replicas_without_cache(item)]


def _over_replicas_without_cache(item: pytest.Item) -> bool:
    chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return chosen.get("database") == "replicas" and chosen.get("world") == "off"


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


@pytest.fixture(scope="session")
def replicated_server() -> Iterator[Replicated]:
    """A primary and two replicas that show everything half a second later, and a cache that is shared."""
    servers: Replicated
    cache = CacheServer(application="conduit")
    try:
        cache.start()
        SHARED.append(cache)
        with replicated(2) as servers:
            servers.delay(0.5)
            place = f"127.0.0.1:{servers.primary.port}"
            REPLICATED[place] = servers
            yield servers
            del REPLICATED[place]
    finally:
        SHARED.clear()
        cache.stop()


def new_database(kind: str, request: pytest.FixtureRequest, directory: Path) -> str:
    """The URL of a migrated database without a row."""
    if kind == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        (directory / "conduit.db").write_bytes(template.read_bytes())
        return f"sqlite:///{directory}/conduit.db"
    if kind == "replicas":
        servers: Replicated = request.getfixturevalue("replicated_server")
        url = servers.primary.create_database()
        asyncio.run(migrate(url, MIGRATIONS))
        servers.settle()
        return url
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database(request.getfixturevalue("postgres_template"))


@pytest.fixture(scope="session", params=["sqlite", "postgres", "replicas"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database of each kind for all tests: they use names of their own."""
    return new_database(request.param, request, tmp_path_factory.mktemp("database"))


@pytest.fixture
def empty_database(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One of the same kind that nobody has used."""
    place = urlsplit(database).netloc.rpartition("@")[2]
    kind = "sqlite" if database.startswith("sqlite") else "replicas" if place in REPLICATED else "postgres"
    return new_database(kind, request, tmp_path)


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

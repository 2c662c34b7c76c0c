"""For every folder: the databases, each real, and how tests run side by side."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support import alone
from tests.support.pgbouncer import Pooler
from tests.support.postgres import PostgresServer

MEMORY = Path("/dev/shm")
ENOUGH = 4 << 30
"""Bytes free there; a whole run takes less than half of it."""


def pytest_configure() -> None:
    """Servers keep their data in memory where there is room: a slow disk makes them late, and tests fail.

    What a server had written before it is killed is kept there, too. TMPDIR chooses another place.
    """
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH:
        os.environ["TMPDIR"] = str(MEMORY)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where several processes share a run, what is marked `alone` has the machine for itself."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    folder = Path(item.config.option.basetemp).parent
    with alone.alone(folder) if item.get_closest_marker("alone") else alone.side_by_side(folder):
        return (yield)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL 18 for the run. A test that kills a server starts its own."""
    server = PostgresServer()
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def pooler(postgres_server: PostgresServer) -> Iterator[Pooler]:
    """One PgBouncer before it."""
    made = Pooler(postgres_server)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind; "pgbouncer" is for suites that ask for it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    if request.param == "pgbouncer":
        pooler: Pooler = request.getfixturevalue("pooler")
        return pooler.create_database()
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()

"""Fixtures for every folder: the databases, each real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pgbouncer import Pooler
from tests.support.postgres import PostgresServer


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

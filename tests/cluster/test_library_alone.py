"""Without a fleet: URLs in outgrow.toml, any ASGI server, a PostgreSQL that somebody else runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.fleets import make_application, wait_until
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer


@pytest.fixture
def directory(tmp_path: Path, postgres_server: PostgresServer) -> Path:
    """An application whose database is elsewhere. The password comes from the environment."""
    made = make_application(tmp_path / "hello")
    parts = urlsplit(postgres_server.create_database())
    url = f"postgresql://{parts.username}:${{DATABASE_PASSWORD}}@{parts.hostname}:{parts.port}{parts.path}"
    file = made / "outgrow.toml"
    text = file.read_text().replace("[application]", '[application]\nsecret = "${APP_SECRET}"')
    file.write_text(f'{text}\n[database]\nurl = "{url}"\n')
    return made


@pytest.fixture
def environment(postgres_server: PostgresServer) -> dict[str, str]:
    """What a person exports."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("OUTGROW_")}
    return {**own, "APP_SECRET": "s" * 40, "DATABASE_PASSWORD": postgres_server.password}


@pytest.fixture
def served(directory: Path, environment: dict[str, str]) -> Iterator[str]:
    """Migrated by the command, served by uvicorn itself."""
    migrate = [sys.executable, "-m", "outgrow.cli", "migrate", str(directory)]
    subprocess.run(migrate, env=environment, check=True, capture_output=True)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning"],
        cwd=directory,
        env=environment,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), "the application")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/deep").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_library_needs_no_fleet(served: str, directory: Path) -> None:
    note = httpx.post(f"{served}/notes", json={"text": "on somebody else's server"}).raise_for_status().json()

    def read() -> dict[str, object]:
        answer = httpx.get(f"{served}/notes/{note['id']}").raise_for_status()
        found: dict[str, object] = answer.json()
        return found

    assert read()["text"] == "on somebody else's server"
    wait_until(lambda: read()["words"] == 4, "the queued task")
    deep = httpx.get(f"{served}/health/deep").json()
    assert any("PostgreSQL" in check["reason"] for check in deep["checks"])
    assert not (directory / ".outgrow" / "supervisor.lock").exists(), "a fleet was started"

"""The two tutorial applications: one behaviour, on each framework, on each database."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from outgrow.endpoints import discover
from outgrow.runtime.database.migrate import migrate
from tests.support.source import ROOT

SETTINGS = 'secret = "0123456789abcdef0123456789abcdef"\n[telemetry]\naccess_log = false'
LINK = {"url": "https://example.org/", "title": "An example"}


@pytest.fixture(params=["fastapi", "litestar"])
def application(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """A copy of the application, set up as a team with a database of its own would do it, imported."""
    directory = tmp_path / "links"
    shutil.copytree(ROOT / "examples" / f"tutorial_{request.param}", directory)
    with (directory / "outgrow.toml").open("a") as file:
        file.write(f"{SETTINGS}\n")
        if database_url.startswith("postgres"):
            file.write(f'[database]\nurl = "{database_url}"\n')
    monkeypatch.chdir(directory)
    monkeypatch.delenv("OUTGROW_ENDPOINTS", raising=False)
    return load(directory / "app.py", monkeypatch)


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "app", module)  # the frameworks look annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def client(application: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    document, secrets = discover()
    url = document.database.shards[0].nodes[0].url
    assert await migrate(url, Path("migrations"), password=secrets.passwords.get("*")) == ["0001"]
    async with running(application.app), browser(application) as client:
        yield client


def browser(application: ModuleType) -> httpx.AsyncClient:
    """A client with cookies of its own."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(application.app), base_url="http://127.0.0.1")


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[None]:
    """The application between start-up and shut-down, as a server runs it."""
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    serving = asyncio.create_task(app(scope, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    yield
    await told.put({"type": "lifespan.shutdown"})
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await serving


async def add(client: httpx.AsyncClient, **changes: str) -> str:
    answer = await client.post("/links", json={**LINK, **changes})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_what_is_added_can_be_read(client: httpx.AsyncClient) -> None:
    link_id = await add(client)
    answer = await client.get(f"/links/{link_id}")
    assert answer.json() == {"id": link_id, "votes": 0, **LINK}
    assert (await client.get("/links/1")).status_code == 404


@pytest.mark.parametrize("wrong", [{"url": "no address"}, {"title": ""}, {"title": "x" * 201}])
async def test_wrong_input_is_refused_and_nothing_is_written(
    client: httpx.AsyncClient, wrong: dict[str, str]
) -> None:
    assert (await client.post("/links", json={**LINK, **wrong})).status_code in (400, 422)
    assert (await client.get("/links")).json() == []


async def test_the_list_is_cached_and_fresh_after_every_write(
    client: httpx.AsyncClient, application: ModuleType
) -> None:
    assert (await client.get("/links")).json() == []
    first = await add(client, title="First")
    assert [link["id"] for link in (await client.get("/links")).json()] == [first]
    await client.get("/links")
    metrics = (await client.get("/metrics")).text
    assert 'outcome="hit"' in metrics


async def test_votes_are_counted_by_the_queue_and_move_a_link_up(
    client: httpx.AsyncClient, application: ModuleType
) -> None:
    first, second = await add(client, title="First"), await add(client, title="Second")
    assert [link["id"] for link in (await client.get("/links")).json()] == [second, first]
    for voter in ("ann", "bob", "eve"):
        assert (await client.put(f"/links/{first}/votes/{voter}")).status_code == 202
    await application.og.queue.drain()
    top = (await client.get("/links")).json()
    assert [(link["id"], link["votes"]) for link in top] == [(first, 3), (second, 0)]


async def test_a_vote_counts_once_and_needs_a_link(
    client: httpx.AsyncClient, application: ModuleType
) -> None:
    link_id = await add(client)
    assert (await client.put(f"/links/{link_id}/votes/ann")).status_code == 202
    again = await client.put(f"/links/{link_id}/votes/ann")
    assert again.status_code == 409
    assert "ann has voted" in again.text
    assert (await client.put("/links/1/votes/ann")).status_code == 404
    await application.og.queue.drain()
    assert (await client.get(f"/links/{link_id}")).json()["votes"] == 1


async def test_a_write_gives_a_bookmark_as_a_cookie_or_to_whoever_sends_the_header(
    client: httpx.AsyncClient, application: ModuleType
) -> None:
    answer = await client.post("/links", json=LINK)
    assert "outgrow_bookmark" in answer.cookies
    token = answer.headers["Outgrow-Bookmark"]
    async with browser(application) as service:
        read = await service.get("/links", headers={"Outgrow-Bookmark": token})
        written = await service.post("/links", json=LINK, headers={"Outgrow-Bookmark": token})
    assert len(read.json()) == 1
    assert written.headers["Outgrow-Bookmark"] != token
    assert "set-cookie" not in written.headers

"""Conduit as its tests use it: loaded for one database and one cache setting, with people who use it.

The application's modules hold one Outgrow object, made at import. To have several at once (each database,
with the cache and without, two servers on one database) the modules are imported anew for each.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from outgrow import Outgrow, endpoints
from outgrow.endpoints import Node, Shard
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark
from outgrow.runtime.scope import Scope
from tests.support.cache import CacheServer
from tests.support.replicas import Replicated

ROOT = Path(__file__).parents[2] / "examples" / "conduit"
MIGRATIONS = ROOT / "migrations"
SECRET = "a secret for tests, long enough to be one"
CHEAP_PASSWORDS = {"CONDUIT_PASSWORD_PASSES": "1", "CONDUIT_PASSWORD_MEMORY_KIB": "8"}
PASSWORD = "correct horse"

_numbers = itertools.count(1)


def unique(prefix: str = "someone") -> str:
    """A name that nobody has yet."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


CHAIN = Bookmark()
"""What has been written and seen by anybody, where there are replicas: people tell each other."""

REPLICATED: dict[str, Replicated] = {}
"""The servers of a database that has replicas, by the place of its primary ("127.0.0.1:5432")."""

SHARED: list[CacheServer] = []
"""What those keep a cache in."""


def settings_for(url: str, cache: Any, directory: Path) -> Path:
    """The endpoints document of a fleet, in a file."""
    plain, password = endpoints.split_password(url)
    servers = REPLICATED.get(urlsplit(plain).netloc.rpartition("@")[2])
    nodes = servers.nodes(plain) if servers is not None else (Node("db", plain),)
    engine: Any = "sqlite" if url.startswith("sqlite") else "postgres"
    secrets = directory / "secrets.json"
    passwords = {"*": password} if password else {}
    keeps = endpoints.Cache(engine=cache)
    if servers is not None and cache == "memory" and SHARED:
        keeps = endpoints.Cache(engine="redis", url=SHARED[0].url)
        passwords["cache"] = SHARED[0].password
    endpoints.write(secrets, endpoints.secrets_of(SECRET, passwords))
    document = endpoints.Endpoints(
        application="conduit",
        stage="test",
        database=endpoints.Database(engine=engine, shards=(Shard("0", nodes),)),
        cache=keeps,
        sessions=endpoints.Sessions(engine="database"),
        telemetry=endpoints.Telemetry(access_log=False),
        secrets_file=str(secrets),
    )
    path = directory / f"{unique('endpoints')}.json"
    endpoints.write(path, document)
    return path


def settle(url: str) -> None:
    """Wait until every replica shows what was written by nobody in particular (a seed)."""
    servers = REPLICATED.get(urlsplit(url).netloc.rpartition("@")[2])
    if servers is not None:
        servers.settle()


class Modules:
    """The application's modules of one import, by name: modules["reading.direct"]."""

    def __init__(self, settings: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"OUTGROW_ENDPOINTS": str(settings), **CHEAP_PASSWORDS}.items():
                patch.setenv(name, value)
            patch.syspath_prepend(str(ROOT))
            _forget_modules()
            for name in ("conduit.app", "conduit.seed"):
                importlib.import_module(name)
            self._found = {
                name: module
                for name, module in sys.modules.items()
                if name == "conduit" or name.startswith("conduit.")
            }
            _forget_modules()

    def __getitem__(self, name: str) -> Any:
        return self._found[f"conduit.{name}" if name else "conduit"]


def _forget_modules() -> None:
    for name in [name for name in sys.modules if name == "conduit" or name.startswith("conduit.")]:
        del sys.modules[name]


class World:
    """One running server, and whoever comes to it."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self.app = modules["app"].app
        self.og: Outgrow = modules[""].og
        self.stranger = self.visitor()

    def visitor(self, token: str | None = None) -> Visitor:
        """Somebody with cookies of their own, and perhaps a token."""
        headers = {"Authorization": f"Token {token}"} if token is not None else {}
        transport = httpx.ASGITransport(app=self.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://conduit", headers=headers)
        if len(self.og.endpoints.database.shards[0].nodes) > 1:
            client.event_hooks = {"request": [self._hand_on], "response": [self._take_over]}
        return Visitor(client)

    async def _hand_on(self, asked: httpx.Request) -> None:
        """People of these tests tell each other what they have done. Who is told later need not see it."""
        if "Outgrow-Bookmark" in asked.headers:
            CHAIN.merge(self.og.signer.decode(asked.headers["Outgrow-Bookmark"]) or Bookmark())
        asked.headers["Outgrow-Bookmark"] = self.og.signer.encode(CHAIN)

    async def _take_over(self, response: httpx.Response) -> None:
        told = self.og.signer.decode(response.headers.get("Outgrow-Bookmark", ""))
        if told is not None:
            CHAIN.merge(told)

    async def register(self, name: str | None = None) -> Person:
        """A new user."""
        name = name or unique()
        fields = {"username": name, "email": f"{unique('mail')}@example.com", "password": PASSWORD}
        user = await self.stranger.post("/api/users", {"user": fields}, 201)
        return Person(self.visitor(user["user"]["token"]).client, name, fields["email"])

    @contextmanager
    def told(self) -> Iterator[None]:
        """What runs inside sees what anybody has written or seen."""
        token = request.current.set(Scope(self.og.signer.decode(self.og.signer.encode(CHAIN))))
        try:
            yield
        finally:
            request.current.reset(token)

    async def truth(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What the database holds."""
        async with self.og.db.read(level="strong") as tx:
            return [tuple(row) for row in await tx.all(sa.text(sql), **parameters)]


class Visitor:
    """An HTTP client that says which status it expects."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def request(
        self, method: str, path: str, document: Any = None, status: int = 200, **more: Any
    ) -> Any:
        answer = await self.client.request(
            method, path, **({"json": document} if document is not None else {}), **more
        )
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        return await self.request("GET", path, None, status, params=query)

    async def post(self, path: str, document: Any = None, status: int = 200) -> Any:
        return await self.request("POST", path, document, status)

    async def put(self, path: str, document: Any = None, status: int = 200) -> Any:
        return await self.request("PUT", path, document, status)

    async def delete(self, path: str, status: int = 204) -> Any:
        return await self.request("DELETE", path, None, status)

    async def list(self, path: str = "/api/articles", **query: Any) -> tuple[list[str], int]:
        """The slugs on a page, and the total."""
        answer = await self.get(path, **query)
        return [article["slug"] for article in answer["articles"]], answer["articlesCount"]


class Person(Visitor):
    """A registered user."""

    def __init__(self, client: httpx.AsyncClient, name: str, email: str) -> None:
        super().__init__(client)
        self.name = name
        self.email = email

    async def write(self, title: str | None = None, **fields: Any) -> dict[str, Any]:
        """Publish an article."""
        article = {"title": title or unique("title"), "description": "about", "body": "text", **fields}
        answer: dict[str, Any] = (await self.post("/api/articles", {"article": article}, 201))["article"]
        return answer

    async def comment(self, slug: str, body: str = "well said") -> dict[str, Any]:
        """Comment on an article."""
        answer = await self.post(f"/api/articles/{slug}/comments", {"comment": {"body": body}}, 201)
        found: dict[str, Any] = answer["comment"]
        return found


@asynccontextmanager
async def running(settings: Path) -> AsyncIterator[World]:
    """A server of its own, until the block ends."""
    world = World(Modules(settings))
    async with world.og.lifespan(world.app):
        yield world


def errors(**fields: str) -> Mapping[str, Any]:
    """The body of an answer that says no."""
    return {"errors": {field: [complaint] for field, complaint in fields.items()}}

"""Registers: a table whose rows the database itself counts, and clients that read and write them.

Whoever plays a session keeps its bookmark as a browser would, as a text that it understands nothing of. The
database says which server has answered, and what a write has replaced (chaos/operations.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Protocol

import asyncpg
import msgspec

from outgrow import Outgrow
from outgrow.chaos.operations import Operation
from outgrow.errors import DatabaseError
from outgrow.load.client import Answer, Failure, Pool
from outgrow.load.target import resolve
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.scope import Scope
from tests.support.registers_app.register import READ, WRITE

APPLICATION = Path(__file__).parent / "registers_app"
KEYS = 200
PAST_THE_CACHE = 0.3

Tokens = tuple[str, ...]
"""The bookmarks that a session holds: its own, and one that it was handed and has not used yet."""


class Told(NamedTuple):
    """What an answer says, and the bookmarks with which the session goes on."""

    version: int
    value: int
    previous: int
    port: int
    tokens: Tokens


class Refused(Exception):
    """An answer that is none. `kind` names the error; if it `began`, it may have been done nevertheless."""

    def __init__(self, kind: str, *, began: bool = True) -> None:
        super().__init__(kind)
        self.kind = kind
        self.began = began


class RolledBack(Exception):
    """A write block was left by an exception: nobody may ever see what it wrote."""


class Client(Protocol):
    """How a session reaches the registers. Each call raises Refused.

    `heard` is called for each message that a write has sent, with the message, the key of the write and what
    whoever got the message has read of it.
    """

    heard: Callable[[int, int, Told], None]

    async def read(self, tokens: Tokens, key: int) -> Told: ...
    async def write(self, tokens: Tokens, key: int, value: int, *, message: int, fails: bool) -> Told: ...


async def create(url: str) -> None:
    """Migrate the database at this URL: Outgrow's own tables, and the registers."""
    await migrate(url, APPLICATION / "migrations")


async def last(url: str) -> list[Operation]:
    """What each register holds, by the server at this URL alone."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        rows = await connection.fetch("SELECT key, version, value, previous FROM register")
    finally:
        await connection.close()
    return [
        Operation(
            session=0, kind="read", started=inf, ended=inf, key=str(key), version=n, value=v, previous=p
        )
        for key, n, v, p in rows
    ]


class InProcess:
    """Without HTTP: each call is a scope of its own with the session's bookmark, as in the middleware."""

    def __init__(self, og: Outgrow, level: str | None = None) -> None:
        self.heard: Callable[[int, int, Told], None] = _not_heard
        self._og = og
        self._level: Any = level
        self._look = og.queue.task(name=f"look {level}")(self._hear)

    async def read(self, tokens: Tokens, key: int) -> Told:
        """One read block. Raises Refused."""
        with self._session(tokens) as scope:
            row = await self._row(key)
            return _told(row, await self._tokens(scope, tokens))

    async def write(self, tokens: Tokens, key: int, value: int, *, message: int, fails: bool) -> Told:
        """One write block, which also sends the message; with `fails` it is rolled back. Raises Refused."""
        with self._session(tokens) as scope:
            async with self._og.db.write() as tx:
                row = await tx.one(WRITE, register_=key, new=value)
                if message:
                    self._og.queue.enqueue(self._look, message, key)
                if fails:
                    raise RolledBack
            return _told(row, await self._tokens(scope, tokens))

    async def _hear(self, message: int, register_: int) -> None:
        self.heard(message, register_, _told(await self._row(register_), ()))

    async def _row(self, key: int) -> Any:
        async with self._og.db.read(level=self._level) as tx:
            return await tx.one(READ, register_=key)

    @contextmanager
    def _session(self, tokens: Tokens) -> Iterator[Scope]:
        scope = Scope(self._bookmark(tokens))
        reset = request.current.set(scope)
        try:
            yield scope
        except RolledBack:
            raise Refused("rolled back", began=False) from None
        except DatabaseError as error:
            raise Refused(type(error).__name__) from error
        finally:
            request.current.reset(reset)

    def _bookmark(self, tokens: Tokens) -> Bookmark:
        merged = Bookmark()
        for number, token in enumerate(tokens):
            found = self._og.signer.decode(token)
            assert found is not None
            if number:
                merged.merge(found)
            else:
                merged = found
        return merged

    async def _tokens(self, scope: Scope, tokens: Tokens) -> Tokens:
        if scope.unsettled is not None:
            await scope.unsettled(scope.bookmark)
        return (self._og.signer.encode(scope.bookmark),) if scope.bookmark.changed else tokens


class Cached(InProcess):
    """Several processes that share a cache: each call goes to any of them, and most reads by the cache."""

    def __init__(self, several: list[Outgrow], level: str | None = None) -> None:
        super().__init__(several[0], level)
        self._several = several
        self._chance = Random(7)
        self.by_cache = 0

    async def read(self, tokens: Tokens, key: int) -> Told:
        """From the cache, or a read block. Raises Refused."""
        og = self._og = self._chance.choice(self._several)
        tokens = tokens or (og.signer.encode(Bookmark()),)  # without one it is no session
        if self._chance.random() < PAST_THE_CACHE:
            return await super().read(tokens, key)
        with self._session(tokens) as scope:

            async def load() -> list[int]:
                async with og.db.read(level=self._level) as tx:
                    row: Any = await tx.one(READ, register_=key)
                    return list(row)

            row = await og.cache.get(f"register:{key}", load, ttl="5s")
            self.by_cache += 1
            version, value, previous, _ = row
            return Told(version, value, previous, 0, await self._tokens(scope, tokens))

    async def write(self, tokens: Tokens, key: int, value: int, *, message: int, fails: bool) -> Told:
        """One write block, which invalidates; see InProcess. Raises Refused."""
        og = self._og = self._chance.choice(self._several)
        with self._session(tokens) as scope:
            async with og.db.write() as tx:
                row = await tx.one(WRITE, register_=key, new=value)
                og.cache.invalidate(f"register:{key}")
                if message:
                    self._several[0].queue.enqueue(self._look, message, key)
                if fails:
                    raise RolledBack
            return _told(row, await self._tokens(scope, tokens))


class OverHTTP:
    """Over HTTP: a program with its bookmark in the header, and what it was handed in the cookie."""

    def __init__(self, url: str, level: str | None = None, *, timeout_s: float = 10.0) -> None:
        self.heard: Callable[[int, int, Told], None] = _not_heard
        self._target = resolve(url)
        self._query = f"?level={level}" if level else ""
        self._pool = Pool(self._target, maximum=1000, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def read(self, tokens: Tokens, key: int) -> Told:
        """GET. Raises Refused."""
        return await self._ask("GET", tokens, key, b"")

    async def write(self, tokens: Tokens, key: int, value: int, *, message: int, fails: bool) -> Told:
        """PUT; no message is sent. Raises Refused."""
        return await self._ask("PUT", tokens, key, msgspec.json.encode({"value": value, "fails": fails}))

    async def _ask(self, method: str, tokens: Tokens, key: int, body: bytes) -> Told:
        own, handed = (*tokens, "", "")[:2]
        lines = [
            f"{method} /registers/{key}{self._query} HTTP/1.1",
            f"host: {self._target.host}",
            f"outgrow-bookmark: {own}",
            *([f"cookie: outgrow_bookmark={handed}"] if handed else []),
            f"content-length: {len(body)}",
        ]
        answered: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
        self._pool.send("\r\n".join([*lines, "", ""]).encode() + body, answered.set_result)
        answer = await answered
        if isinstance(answer, Failure):
            raise Refused(answer.kind)
        if answer.status != 200:
            raise Refused(_kind(answer), began=answer.status != 418)
        token = dict(answer.headers).get(b"outgrow-bookmark", b"").decode()
        return _told(msgspec.json.decode(answer.body), (token,) if token else tokens)


def _told(row: Any, tokens: Tokens) -> Told:
    version, value, previous, port = row
    return Told(version, value, previous, port, tokens)


def _kind(answer: Answer) -> str:
    """409 is what middleware makes of LostWrite; the application itself never answers it."""
    return "LostWrite" if answer.status == 409 else f"status {answer.status}"


def _not_heard(message: int, key: int, told: Told) -> None:
    """Whoever records has not said that it wants to know."""

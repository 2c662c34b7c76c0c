"""Sessions over each store, and visitors who keep their cookie as a browser does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from outgrow import endpoints
from outgrow.runtime.database import schema
from outgrow.runtime.events import Events
from outgrow.runtime.sessions import Movable, Session, Sessions, open_store
from outgrow.runtime.sessions.sessions import Ticket, Visit
from tests.support.tasks import open_database

KEY = b"k" * 32


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += seconds


@asynccontextmanager
async def stores(kind: str, url: str, password: str | None = None) -> AsyncIterator[Movable]:
    """An open store: "memory", "database" at its URL, "redis" at its URL."""
    if kind == "database":
        db = open_database(url, Events())
        await db.open()
        try:
            yield open_store(
                endpoints.SessionStore("database"),
                database=db,
                table=schema.session,
                passwords={},
                application="",
            )
        finally:
            await db.close()
        return
    passwords = {} if password is None else {"sessions": password}
    store = open_store(
        endpoints.SessionStore("redis" if kind == "redis" else "memory", url or None),
        database=None,
        table=None,
        passwords=passwords,
        application="test",
    )
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Visitor:
    """One browser: each request brings the cookie that the last answer has set."""

    def __init__(self, sessions: Sessions, cookie: str = "") -> None:
        self.sessions = sessions
        self.cookie = cookie

    async def begin(self) -> Visit:
        """A request begins."""
        if not self.cookie:
            return self.sessions.stranger()
        return await self.sessions.visit([self.cookie.encode()])

    async def end(self, visit: Visit) -> Ticket | None:
        """Its answer begins."""
        ticket = await self.sessions.save(visit)
        if ticket is not None:
            self.cookie = ticket.text
        await self.sessions.touch(visit)
        return ticket

    @asynccontextmanager
    async def request(self) -> AsyncIterator[Session]:
        """One request from beginning to end."""
        visit = await self.begin()
        yield visit.session
        await self.end(visit)

    async def content(self) -> dict[str, object]:
        """What its next request finds."""
        return dict((await self.begin()).session)

"""What the handlers ask of a database: one statement an answer, and rows as the driver gives them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from msgspec import Raw

Row = Sequence[Any]
FILTERS = ("tag", "author", "favorited")


class Store(Protocol):
    """An article's row is as answers.article takes it, a page's rows as answers.page does."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def login(self, email: str) -> Row | None: ...
    async def tags(self) -> list[str] | Raw: ...
    async def article(self, slug: str, user: int | None) -> Row | None: ...
    async def comments(self, slug: str, user: int | None) -> Sequence[Row]: ...
    async def favourite(self, slug: str, user: int) -> Row | None: ...
    async def unfavourite(self, slug: str, user: int) -> Row | None: ...
    async def add_comment(self, slug: str, user: int, body: str) -> Row | None: ...
    async def follow(self, username: str, user: int) -> Row | None: ...
    async def unfollow(self, username: str, user: int) -> Row | None: ...

    async def page(
        self, kind: str, value: str | int | None, user: int | None, limit: int, offset: int
    ) -> tuple[int, Sequence[Row]]:
        """`kind` is "all", "feed" or one of FILTERS; returns the total, too."""

    async def add_article(
        self, user: int, slug: str, title: str, description: str, body: str, tags: list[str]
    ) -> Row:
        """Its tags are sorted and each is there once."""

    async def change_article(
        self, slug: str, user: int, description: str | None, body: str | None
    ) -> tuple[bool, Row | None]:
        """Whether there is such an article, and its row if it is this user's."""


def open_store(url: str) -> Store:
    """The store of a URL, opened later."""
    if url.startswith("sqlite:///"):
        from benchmarks.sketch.sqlite import SQLiteStore

        return SQLiteStore(url.removeprefix("sqlite:///"))
    from benchmarks.sketch.postgres import PostgresStore

    return PostgresStore(url)


def now() -> str:
    """This moment as it is stored and sent."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

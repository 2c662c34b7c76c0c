"""The documents of the API, built from rows and encoded by msgspec."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response


class Author(msgspec.Struct, gc=False):
    username: str
    bio: str | None
    image: str | None
    following: bool


class Item(msgspec.Struct, gc=False):
    """An article in a list: without its body. Tags and moments are stored as they are sent."""

    slug: str
    title: str
    description: str
    tagList: msgspec.Raw  # noqa: N815
    createdAt: str  # noqa: N815
    updatedAt: str  # noqa: N815
    favoritesCount: int  # noqa: N815
    favorited: bool
    author: Author


class Article(Item, gc=False):
    body: str


class Comment(msgspec.Struct, gc=False):
    id: int
    createdAt: str  # noqa: N815
    updatedAt: str  # noqa: N815
    body: str
    author: Author


_encode = msgspec.json.Encoder().encode
_HEADERS = {"content-type": "application/json"}


def page(count: int, rows: Iterable[Sequence[Any]]) -> Response:
    """A list. A row: count, then what `item` takes."""
    return answer({"articles": [item(*row[1:]) for row in rows], "articlesCount": count})


def item(
    slug: str,
    title: str,
    description: str,
    tags: str,
    created: str,
    updated: str,
    favourites: int,
    favourited: Any,
    username: str,
    bio: str | None,
    image: str | None,
    following: Any,
) -> Item:
    """One article of a list, from its columns. SQLite has 0 and 1 for the two flags."""
    author = Author(username, bio, image, following == 1)
    raw = msgspec.Raw(tags)
    return Item(slug, title, description, raw, created, updated, favourites, favourited == 1, author)


def article(row: Sequence[Any], status: int = 200) -> Response:
    """One article with its body, which is the row's last column."""
    *columns, body = row
    short = item(*columns)
    whole = Article(
        short.slug,
        short.title,
        short.description,
        short.tagList,
        short.createdAt,
        short.updatedAt,
        short.favoritesCount,
        short.favorited,
        short.author,
        body,
    )
    return answer({"article": whole}, status)


def comment(row: Sequence[Any]) -> Comment:
    """A comment, from: id, created, body, username, bio, image, following."""
    number, created, body, username, bio, image, following = row
    return Comment(number, created, created, body, Author(username, bio, image, following == 1))


def profile(row: Sequence[Any], following: bool) -> Response:
    """A profile, from: username, bio, image."""
    username, bio, image = row
    return answer({"profile": Author(username, bio, image, following)})


def answer(document: Any, status: int = 200) -> Response:
    """The document as JSON."""
    return Response(_encode(document), status, _HEADERS)


def refuse(status: int, field: str, problem: str) -> Response:
    """An error in the specification's form."""
    return answer({"errors": {field: [problem]}}, status)

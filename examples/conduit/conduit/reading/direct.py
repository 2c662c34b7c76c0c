"""Every answer from one statement."""

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from conduit import og
from conduit.documents import Article, Articles, Comment, Profile, Summary, encode
from conduit.problems import not_found
from conduit.reading import statements
from conduit.validation import Filters


def _personal(viewer: int | None) -> dict[str, Any]:
    """The parameters of a statement that depend on the reader."""
    return {} if viewer is None else {"viewer": viewer}


async def articles(filters: Filters, viewer: int | None) -> bytes:
    """A list of articles."""
    size = statements.page_size(filters.limit)
    statement = statements.article_page(*filters.shape(), viewer is not None, size)
    async with og.db.read() as tx:
        rows = await tx.all(statement, **filters.parameters(), **_personal(viewer))
    return _as_list(rows[: filters.limit])


async def feed(viewer: int, limit: int, offset: int) -> bytes:
    """What those whom the caller follows have written."""
    size = statements.page_size(limit)
    async with og.db.read(key=viewer) as tx:
        rows = await tx.all(
            statements.feed_page(size), viewer=viewer, offset=offset, window=offset + size - 1
        )
    return _as_list(rows[:limit])


def _as_list(rows: Sequence[Any]) -> bytes:
    return encode(Articles([_summary(*row) for row in rows if row[1] is not None], rows[0][0]))


def _summary(
    total: int,
    slug: str,
    title: str,
    description: str,
    tag_list: str,
    created_at: str,
    updated_at: str,
    favorites_count: int,
    username: str,
    bio: str | None,
    image: str | None,
    favorited: int = 0,
    following: int = 0,
) -> Summary:
    author = Profile(username, bio, image, bool(following))
    tags = Raw(tag_list)
    return Summary(
        slug, title, description, tags, created_at, updated_at, bool(favorited), favorites_count, author
    )


async def article(slug: str, viewer: int | None) -> bytes:
    """One article. Raises Problem 404."""
    async with og.db.read() as tx:
        row = await tx.one(statements.article(viewer is not None), slug=slug, **_personal(viewer))
    if row is None:
        raise not_found("article")
    return encode({"article": as_article(*row)})


def as_article(
    slug: str,
    title: str,
    description: str,
    tag_list: str,
    created_at: str,
    updated_at: str,
    body: str,
    favorites_count: int,
    username: str,
    bio: str | None,
    image: str | None,
    favorited: int = 0,
    following: int = 0,
) -> Article:
    """From a row of statements.article."""
    author = Profile(username, bio, image, bool(following))
    tags = Raw(tag_list)
    return Article(
        slug, title, description, tags, created_at, updated_at, body, bool(favorited), favorites_count, author
    )


async def comments(slug: str, viewer: int | None) -> bytes:
    """The comments on an article, newest first. Raises Problem 404."""
    statement = statements.article_comments(viewer is not None)
    async with og.db.read() as tx:
        rows = await tx.all(statement, slug=slug, **_personal(viewer))
    if not rows:
        raise not_found("article")
    return encode({"comments": [as_comment(*row) for row in rows if row[0] is not None]})


def as_comment(
    number: int,
    created_at: str,
    body: str,
    username: str,
    bio: str | None,
    image: str | None,
    following: int = 0,
) -> Comment:
    """From a row of statements.article_comments."""
    return Comment(number, created_at, created_at, body, Profile(username, bio, image, bool(following)))


async def profile(username: str, viewer: int | None) -> bytes:
    """A profile. Raises Problem 404."""
    async with og.db.read() as tx:
        row = await tx.one(statements.profile(viewer is not None), username=username, **_personal(viewer))
    if row is None:
        raise not_found("profile")
    return encode({"profile": as_profile(*row)})


def as_profile(username: str, bio: str | None, image: str | None, following: int = 0) -> Profile:
    """From a row of statements.profile."""
    return Profile(username, bio, image, bool(following))


async def tags() -> bytes:
    """The tags, most popular first."""
    async with og.db.read() as tx:
        return encode({"tags": [name for (name,) in await tx.all(statements.POPULAR_TAGS)]})

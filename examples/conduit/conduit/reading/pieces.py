"""Every answer from pieces in the cache, put together without a statement.

    which articles        a page of ids            changes when one is written, deleted, tagged anew
    what they look like   JSON with holes for      changes when one of them is edited or favourited,
                          what the reader does     or its author renamed
    what the reader does  two sets of ids          changes when they favourite or follow

A write invalidates only what it has changed (changes.py): after a favourite, that article is read again
by its id, and its reader's set; no list is searched for anew. The answers are byte for byte those of
direct.py; a test holds the two against each other.
"""

from msgspec import Struct

from conduit import changes, og
from conduit.documents import HOLE, Comment, encode, encode_with_holes
from conduit.problems import not_found
from conduit.reading import by_id, direct
from conduit.reading.lists import articles, feed
from conduit.reading.parts import FALSE, TRUE, TTL, Part, id_of, parts_of, profiles, tastes

__all__ = ["article", "articles", "comments", "feed", "profile", "tags"]


class Text(Struct, frozen=True, gc=False):
    """Which article an address leads to, and its body as a JSON text."""

    article_id: int
    body: bytes


async def article(slug: str, viewer: int | None) -> bytes:
    """One article. Raises Problem 404."""
    favorites, follows = await tastes(viewer)
    if favorites is None or follows is None:
        return await direct.article(slug, viewer)
    text = await _text(slug)
    part = await _part(text.article_id)
    # The body stands before `favorited`, where `head` ends.
    return b'{"article":%b"body":%b,"favorited":%b%b%b%b}' % (
        part.head[: -len(b'"favorited":')],
        text.body,
        TRUE if text.article_id in favorites else FALSE,
        part.middle,
        TRUE if part.author_id in follows else FALSE,
        part.tail,
    )


async def _text(slug: str) -> Text:
    async def load() -> Text:
        async with og.db.read() as tx:
            row = await tx.one(by_id.ARTICLE_AT, slug=slug)
        if row is None:
            raise not_found("article")  # not kept: whoever makes up addresses fills no cache
        return Text(row.id, encode(row.body))

    return await og.cache.get(changes.slug(slug), load, ttl=TTL)


async def _part(article_id: int) -> Part:
    found = await parts_of([article_id])
    if not found:
        raise not_found("article")  # deleted since its address was looked up
    return found[0]


async def profile(username: str, viewer: int | None) -> bytes:
    """A profile. Raises Problem 404."""
    _, follows = await tastes(viewer)
    if follows is None:
        return await direct.profile(username, viewer)
    user_id = await id_of(username)
    following = TRUE if user_id in follows else FALSE
    return b"".join((b'{"profile":', await _profile(user_id), following, b"}}"))


async def _profile(user_id: int) -> bytes:
    found = await profiles([user_id])
    if not found:
        raise not_found("profile")
    return found[user_id]


async def tags() -> bytes:
    """The tags, most popular first."""
    return await og.cache.get(changes.TAGS, direct.tags, ttl=TTL)


async def comments(slug: str, viewer: int | None) -> bytes:
    """The comments on an article, newest first. Raises Problem 404."""
    _, follows = await tastes(viewer)
    if follows is None:
        return await direct.comments(slug, viewer)
    written = await _comments(slug)
    authors = await profiles([author_id for author_id, _, _ in written])
    shown = [
        b"".join((head, authors[author_id], TRUE if author_id in follows else FALSE, b"}", tail))
        for author_id, head, tail in written
    ]
    return b"".join((b'{"comments":[', b",".join(shown), b"]}"))


async def _comments(slug: str) -> list[tuple[int, bytes, bytes]]:
    article_id = (await _text(slug)).article_id

    async def load() -> list[tuple[int, bytes, bytes]]:
        async with og.db.read() as tx:
            return [_comment(*row) for row in await tx.all(by_id.COMMENT_PIECES, article_id=article_id)]

    return await og.cache.get(changes.comments(article_id), load, ttl=TTL)


def _comment(author_id: int, number: int, created_at: str, body: str) -> tuple[int, bytes, bytes]:
    head, tail = encode_with_holes(Comment(number, created_at, created_at, body, HOLE))
    return author_id, head, tail

"""Comments on articles, numbered within each by the time at which they were made."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from starlette.requests import Request
from starlette.responses import Response

from conduit import changes, og
from conduit.auth import known_viewer, viewer_of
from conduit.blocks import Writer
from conduit.documents import Json, NewComment
from conduit.problems import forbidden, not_found
from conduit.reading import answers, direct
from conduit.tables import articles, as_text, comments, users
from conduit.validation import path_text, read_document
from outgrow import errors

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

DIGITS_MAX = 18
"""Of a number that may be some comment's: it fits into 64 bits."""

AUTHOR_ID = bindparam("author_id", type_=sa.BigInteger)
AUTHOR = [
    sa.select(column).where(users.c.id == AUTHOR_ID).scalar_subquery()
    for column in (users.c.username, users.c.bio, users.c.image)
]
ADD_COMMENT = (
    sa.insert(comments)
    .from_select(
        ["article_id", "number", "author_id", "created_at", "body"],
        sa.select(
            articles.c.id,
            bindparam("number", type_=sa.BigInteger),
            AUTHOR_ID,
            bindparam("created_at", type_=sa.Text),
            bindparam("body", type_=sa.Text),
        ).where(articles.c.slug == bindparam("slug")),
    )
    .returning(comments.c.article_id, comments.c.number, comments.c.created_at, comments.c.body, *AUTHOR)
)
ARTICLE_ID = sa.select(articles.c.id).where(articles.c.slug == bindparam("slug"))
COMMENT = (
    sa.select(comments.c.author_id)
    .where(comments.c.article_id == bindparam("article_id"), comments.c.number == bindparam("number"))
    .with_for_update()
)
DELETE_COMMENT = sa.delete(comments).where(
    comments.c.article_id == bindparam("article_id"), comments.c.number == bindparam("number")
)


async def show(request: Request) -> Json:
    viewer = viewer_of(request)
    return Json(await answers.comments(path_text(request, "slug", "article"), viewer))


async def add(request: Request) -> Json:
    viewer = known_viewer(request)
    new = await read_document(request, "comment", NewComment)
    slug = path_text(request, "slug", "article")
    while True:
        try:
            comment = await _store(slug, viewer, new.body)
            break
        except errors.UniqueViolation:  # another on this article in this very microsecond
            continue
    return Json({"comment": direct.as_comment(*comment)}, 201)


async def _store(slug: str, author_id: int, body: str) -> Any:
    """Store a comment made now; returns what is shown of it. Raises Problem 404, UniqueViolation."""
    moment = datetime.now(UTC)
    async with og.db.write(key=author_id) as tx:
        comment = await tx.one(
            ADD_COMMENT,
            slug=slug,
            number=(moment - EPOCH) // timedelta(microseconds=1),
            author_id=author_id,
            created_at=as_text(moment),
            body=body,
        )
        if comment is None:
            raise not_found("article")
        article_id, *shown = comment
        og.cache.invalidate(changes.comments(article_id))
    return shown


async def delete(request: Request) -> Response:
    viewer = known_viewer(request)
    slug = path_text(request, "slug", "article")
    async with og.db.write(key=viewer) as tx:
        key = await _own_comment(tx, slug, request.path_params["number"], viewer)
        await tx.execute(DELETE_COMMENT, **key)
        og.cache.invalidate(changes.comments(key["article_id"]))
    return Response(status_code=204)


async def _own_comment(tx: Writer, slug: str, text: str, viewer: int) -> dict[str, Any]:
    """The key of the comment at the address. Raises Problem 404 for the article, then for the comment,
    and 403 when somebody else has written it."""
    article_id = await tx.value(ARTICLE_ID, slug=slug)
    if article_id is None:
        raise not_found("article")
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else 0
    key = {"article_id": article_id, "number": number}
    comment = await tx.one(COMMENT, **key)
    if comment is None:
        raise not_found("comment")
    if comment.author_id != viewer:
        raise forbidden("comment")
    return key

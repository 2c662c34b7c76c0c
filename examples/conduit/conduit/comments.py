"""Comments on articles, numbered within each."""

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
from conduit.reading import answers
from conduit.tables import articles, comments, now
from conduit.validation import path_text, read_document

NUMBER_MAX = 2**31 - 1

TAKE_NUMBER = (
    sa.update(articles)
    .where(articles.c.slug == bindparam("at"))
    .values(last_comment=articles.c.last_comment + 1)
    .returning(articles.c.id, articles.c.last_comment)
)
ADD_COMMENT = sa.insert(comments)
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
    async with og.db.write(key=viewer) as tx:
        article = await tx.one(TAKE_NUMBER, at=slug)
        if article is None:
            raise not_found("article")
        comment = {"author_id": viewer, "number": article.last_comment, "created_at": now(), "body": new.body}
        await tx.execute(ADD_COMMENT, article_id=article.id, **comment)
        og.cache.invalidate(changes.comments(slug))
    return Json(await answers.own_comment(**comment), 201)


async def delete(request: Request) -> Response:
    viewer = known_viewer(request)
    slug = path_text(request, "slug", "article")
    async with og.db.write(key=viewer) as tx:
        key = await _own_comment(tx, slug, request.path_params["number"], viewer)
        await tx.execute(DELETE_COMMENT, **key)
        og.cache.invalidate(changes.comments(slug))
    return Response(status_code=204)


async def _own_comment(tx: Writer, slug: str, text: str, viewer: int) -> dict[str, Any]:
    """The key of the comment at the address. Raises Problem 404 for the article, then for the comment,
    and 403 when somebody else has written it."""
    article_id = await tx.value(ARTICLE_ID, slug=slug)
    if article_id is None:
        raise not_found("article")
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    key = {"article_id": article_id, "number": number}
    comment = await tx.one(COMMENT, **key) if number <= NUMBER_MAX else None
    if comment is None:
        raise not_found("comment")
    if comment.author_id != viewer:
        raise forbidden("comment")
    return key

"""Favourites. Doing it twice is doing it once, and what is so already needs no transaction."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request

from conduit import changes, og
from conduit.auth import known_viewer
from conduit.documents import Json
from conduit.problems import not_found
from conduit.reading import direct, statements
from conduit.tables import articles, favorites
from conduit.validation import path_text

ARTICLE_ID = bindparam("article_id", type_=sa.BigInteger)
USER_ID = bindparam("user_id", type_=sa.BigInteger)

THERE = sa.select(USER_ID, articles.c.id).where(articles.c.id == ARTICLE_ID)
ADD = insert(favorites).from_select(["user_id", "article_id"], THERE).on_conflict_do_nothing()
REMOVE = sa.delete(favorites).where(favorites.c.user_id == USER_ID, favorites.c.article_id == ARTICLE_ID)
COUNT = (
    sa.update(articles)
    .where(articles.c.id == ARTICLE_ID)
    .values(favorites_count=articles.c.favorites_count + bindparam("by", type_=sa.Integer))
    .returning(articles.c.favorites_count)
)


async def favorite(request: Request) -> Json:
    return await _make(request, favorited=True)


async def unfavorite(request: Request) -> Json:
    return await _make(request, favorited=False)


async def _make(request: Request, *, favorited: bool) -> Json:
    viewer = known_viewer(request)
    slug = path_text(request, "slug", "article")
    async with og.db.read(key=viewer, level="strong") as tx:
        row = await tx.one(statements.ARTICLE_AND_ID, slug=slug, viewer=viewer)
    if row is None:
        raise not_found("article")
    *shown, article_id = row
    article = direct.as_article(*shown)
    if article.favorited is not favorited:
        article.favorited = favorited
        article.favorites_count = await _store(viewer, article_id, favorited)
    return Json({"article": article})


async def _store(viewer: int, article_id: int, favorited: bool) -> int:
    """Store it and count it; returns how many there are. Raises Problem 404 when the article is gone."""
    statement, by = (ADD, 1) if favorited else (REMOVE, -1)
    async with og.db.write(key=viewer) as tx:
        # No row changes when the same reader has done the same at once, and was first.
        changed = await tx.execute(statement, user_id=viewer, article_id=article_id)
        count: int | None = await tx.value(COUNT, article_id=article_id, by=by if changed else 0)
        og.cache.invalidate(changes.article(article_id), changes.favorites(viewer))
    if count is None:
        raise not_found("article")
    return count

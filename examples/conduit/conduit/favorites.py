"""Favourites. Doing it twice is doing it once."""

import sqlalchemy as sa
from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request

from conduit import changes, og
from conduit.auth import known_viewer
from conduit.counts import COUNT_FAVORITES
from conduit.documents import Json
from conduit.reading import answers
from conduit.tables import articles, favorites
from conduit.validation import path_text

VIEWER = bindparam("viewer", type_=sa.BigInteger)
FAVORITED = sa.exists().where(favorites.c.user_id == VIEWER, favorites.c.article_id == articles.c.id)

ADD = insert(favorites).on_conflict_do_nothing()
REMOVE = sa.delete(favorites).where(
    favorites.c.user_id == bindparam("user_id"), favorites.c.article_id == bindparam("article_id")
)


def _count(by: int, condition: ColumnElement[bool]) -> sa.Executable:
    """Count one more or less on the article at :at, which locks it; returns its id."""
    counted = sa.update(articles).values(favorites_count=articles.c.favorites_count + by)
    return counted.where(articles.c.slug == bindparam("at"), condition).returning(articles.c.id)


COUNT_MORE = _count(1, ~FAVORITED)
COUNT_LESS = _count(-1, FAVORITED)


async def favorite(request: Request) -> Json:
    return await _change(request, COUNT_MORE, ADD, by=1)


async def unfavorite(request: Request) -> Json:
    return await _change(request, COUNT_LESS, REMOVE, by=-1)


async def _change(request: Request, count: sa.Executable, change: sa.Executable, by: int) -> Json:
    """Favour or not; the count changes only if a row did."""
    viewer = known_viewer(request)
    slug = path_text(request, "slug", "article")
    async with og.db.write(key=viewer) as tx:
        article_id = await tx.value(count, at=slug, viewer=viewer)
        if article_id is not None:
            if not await tx.execute(change, user_id=viewer, article_id=article_id):
                # The same reader did the same at once, and was first: COUNT waited for that and then looked
                # at the favourites as they were before.
                await tx.execute(COUNT_FAVORITES, article_id=article_id, by=-by)
            og.cache.invalidate(changes.article(article_id), changes.favorites(viewer))
    return Json(await answers.article(slug, viewer))

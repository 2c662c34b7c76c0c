"""Favourites. Doing it twice is doing it once."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request

from conduit import changes, counts, og
from conduit.auth import known_viewer
from conduit.documents import Json
from conduit.problems import not_found
from conduit.reading import direct
from conduit.reading.statements import ARTICLE_TO_MARK
from conduit.tables import favorites
from conduit.validation import path_text

ADD = insert(favorites).on_conflict_do_nothing()
REMOVE = sa.delete(favorites).where(
    favorites.c.user_id == bindparam("user_id"), favorites.c.article_id == bindparam("article_id")
)


async def favorite(request: Request) -> Json:
    return await _change(request, ADD, by=1)


async def unfavorite(request: Request) -> Json:
    return await _change(request, REMOVE, by=-1)


async def _change(request: Request, statement: sa.Executable, by: int) -> Json:
    """Favour or not; the counts change only if a row did."""
    viewer = known_viewer(request)
    slug = path_text(request, "slug", "article")
    async with og.db.write(key=viewer) as tx:
        row = await tx.one(ARTICLE_TO_MARK, slug=slug, viewer=viewer)
        if row is None:
            raise not_found("article")
        *columns, article_id = row
        article = direct.article_of(*columns)
        article.favorited = by > 0
        if await tx.execute(statement, user_id=viewer, article_id=article_id):
            article.favorites_count += by
            await counts.favorites_changed(tx, article_id, viewer, by)
            og.cache.invalidate(changes.article(article_id), changes.slug(slug), changes.favorites(viewer))
    return Json({"article": article})

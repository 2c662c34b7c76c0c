"""Articles: lists, the feed, and one at a time."""

from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, Raw, json
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request
from starlette.responses import Response

from conduit import changes, counts, og, slugs
from conduit.auth import known_viewer, viewer_of
from conduit.blocks import Writer
from conduit.documents import HOLE, Article, ArticleChanges, Json, NewArticle, Profile
from conduit.problems import forbidden, not_found
from conduit.reading import answers, direct, statements
from conduit.tables import articles, favorites, now
from conduit.validation import filters_of, path_text, read_document
from outgrow import errors

ADD_ARTICLE = (
    insert(articles).values(favorites_count=0).on_conflict_do_nothing(index_elements=[articles.c.slug])
)
ARTICLE_TO_CHANGE = statements.ARTICLE_AND_ID.add_columns(articles.c.author_id).with_for_update(of=articles)
CHANGED = ("slug", "title", "description", "body", "tag_list", "updated_at")
CHANGE_ARTICLE = (
    sa.update(articles)
    .where(articles.c.id == bindparam("article_id"))
    .values({name: bindparam(f"new_{name}") for name in CHANGED})
)
FANS = sa.select(favorites.c.user_id).where(favorites.c.article_id == bindparam("article_id"))
DELETE_ARTICLE = sa.delete(articles).where(articles.c.id == bindparam("article_id"))


async def show_list(request: Request) -> Json:
    viewer = viewer_of(request)
    return Json(await answers.articles(filters_of(request.scope["query_string"]), viewer))


async def show_feed(request: Request) -> Json:
    viewer = known_viewer(request)
    filters = filters_of(request.scope["query_string"])
    return Json(await answers.feed(viewer, filters.limit, filters.offset))


async def show(request: Request) -> Json:
    viewer = viewer_of(request)
    return Json(await answers.article(path_text(request, "slug", "article"), viewer))


async def create(request: Request) -> Json:
    viewer = known_viewer(request)
    new = await read_document(request, "article", NewArticle)
    tags = tidy(new.tag_list)
    article_id = og.ids.next()
    async with og.db.write(key=viewer) as tx:
        article = await _add(tx, article_id, viewer, new, tags)
        article.author = Profile(*await counts.article_added(tx, article_id, viewer, tags))
        og.cache.invalidate(
            changes.ARTICLES,
            changes.TAGS,
            changes.written(viewer),
            changes.article(article_id),
            changes.slug(article.slug),
            *map(changes.tagged, tags),
        )
    return Json({"article": article}, 201)


async def change(request: Request) -> Json:
    viewer = known_viewer(request)
    wanted = await read_document(request, "article", ArticleChanges)
    async with og.db.write(key=viewer) as tx:
        old = await _own_article(tx, request, viewer)
        article = await _store(tx, old, wanted)
        og.cache.invalidate(changes.article(old.id), changes.slug(old.slug), changes.slug(article.slug))
        if wanted.tag_list is not UNSET:
            await _retag(tx, old.id, before=json.decode(old.tag_list), after=tidy(wanted.tag_list))
    return Json({"article": article})


async def delete(request: Request) -> Response:
    viewer = known_viewer(request)
    async with og.db.write(key=viewer) as tx:
        article = await _own_article(tx, request, viewer)
        tags = json.decode(article.tag_list)
        fans = [row.user_id for row in await tx.all(FANS, article_id=article.id)]
        await counts.article_leaves(tx, article.id, viewer, tags)
        await tx.execute(DELETE_ARTICLE, article_id=article.id)
        og.cache.invalidate(
            changes.ARTICLES,
            changes.TAGS,
            changes.written(viewer),
            changes.article(article.id),
            changes.slug(article.slug),
            changes.comments(article.id),
            *map(changes.tagged, tags),
            *map(changes.favorites, fans),
        )
    return Response(status_code=204)


def tidy(tags: list[str]) -> list[str]:
    """Each tag once, in alphabetical order."""
    return sorted({tag.strip() for tag in tags})


async def _add(tx: Writer, article_id: int, author_id: int, new: NewArticle, tags: list[str]) -> Article:
    """Store the article at the first address that is free; returns it, still without its author."""
    moment, tag_list = now(), json.encode(tags)
    for slug in slugs.candidates(new.title):
        added = await tx.execute(
            ADD_ARTICLE,
            id=article_id,
            author_id=author_id,
            slug=slug,
            title=new.title,
            description=new.description,
            tag_list=tag_list.decode(),
            created_at=moment,
            updated_at=moment,
            body=new.body,
        )
        if added:
            break
    return Article(
        slug, new.title, new.description, Raw(tag_list), moment, moment, new.body, False, 0, author=HOLE
    )


async def _own_article(tx: Writer, request: Request, viewer: int) -> Any:
    """The article at the address, locked. Raises Problem 404, or 403 when somebody else has written it."""
    article = await tx.one(ARTICLE_TO_CHANGE, slug=path_text(request, "slug", "article"), viewer=viewer)
    if article is None:
        raise not_found("article")
    if article.author_id != viewer:
        raise forbidden("article")
    return article


async def _store(tx: Writer, old: Any, wanted: ArticleChanges) -> Article:
    """Store what changes; returns the article as it is then. The slug follows the title."""
    *shown, article_id, _ = old
    article = direct.as_article(*shown)
    for name in ("title", "description", "body"):
        if (value := getattr(wanted, name)) is not UNSET:
            setattr(article, name, value)
    if wanted.tag_list is not UNSET:
        article.tag_list = Raw(json.encode(tidy(wanted.tag_list)))
    article.updated_at = now()
    if slugs.fits(old.slug, article.title):
        await tx.execute(CHANGE_ARTICLE, article_id=article_id, **_changed(article))
        return article
    for slug in slugs.candidates(article.title):
        article.slug = slug
        try:
            async with tx.savepoint():
                await tx.execute(CHANGE_ARTICLE, article_id=article_id, **_changed(article))
            break
        except errors.UniqueViolation:  # another article has this address
            continue
    return article


def _changed(article: Article) -> dict[str, str]:
    """The parameters of CHANGE_ARTICLE."""
    values = {name: getattr(article, name) for name in CHANGED}
    return {f"new_{name}": value for name, value in values.items()} | {
        "new_tag_list": bytes(article.tag_list).decode()
    }


async def _retag(tx: Writer, article_id: int, *, before: list[str], after: list[str]) -> None:
    removed, added = sorted(set(before) - set(after)), sorted(set(after) - set(before))
    await counts.tags_changed(tx, article_id, removed=removed, added=added)
    if removed or added:
        og.cache.invalidate(changes.TAGS, *map(changes.tagged, [*removed, *added]))

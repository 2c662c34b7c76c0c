"""The queries behind the answers: one for each, whatever the reader, the filter and the page.

Each is built once and compiled once; `personal` ones also tell what the reader (:viewer) has favourited
and whom they follow. No answer counts rows, except of the favourites of one user and of two filters at
once, where no count is kept.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Select, bindparam

from conduit.tables import article_tags, articles, comments, counters, favorites, follows, tags, users

COMMENTS_MAX = 1_000
TAGS_MAX = 1_000

Query = Select[Any]


def _whether(rows: Query) -> ColumnElement[Any]:
    """Whether there is such a row, as the driver gives it: 0 or 1, or a bool."""
    return sa.type_coerce(sa.exists(rows), sa.Integer)


VIEWER = bindparam("viewer", type_=sa.BigInteger)
SLUG: sa.BindParameter[str] = bindparam("slug", type_=sa.Text)

SUMMARY = (
    articles.c.slug,
    articles.c.title,
    articles.c.description,
    articles.c.tag_list,
    articles.c.created_at,
    articles.c.updated_at,
)
AUTHOR = (users.c.username, users.c.bio, users.c.image)
FAVORITED = _whether(
    sa.select(favorites.c.user_id).where(
        favorites.c.user_id == VIEWER, favorites.c.article_id == articles.c.id
    )
)
FOLLOWING = _whether(
    sa.select(follows.c.follower_id).where(
        follows.c.follower_id == VIEWER, follows.c.followee_id == users.c.id
    )
)


def _user_named(parameter: str) -> Any:
    return sa.select(users.c.id).where(users.c.username == bindparam(parameter)).scalar_subquery()


# --- One article, one profile, the tags, the comments.


@cache
def article(personal: bool) -> Query:
    """The article at :slug with its author."""
    flags = (FAVORITED, FOLLOWING) if personal else ()
    columns = (*SUMMARY, articles.c.body, articles.c.favorites_count, *AUTHOR, *flags)
    return (
        sa.select(*columns)
        .join_from(articles, users, users.c.id == articles.c.author_id)
        .where(articles.c.slug == SLUG)
    )


ARTICLE_AND_ID = article(personal=True).add_columns(articles.c.id)


@cache
def profile(personal: bool) -> Query:
    """The user named :username."""
    flags = (FOLLOWING,) if personal else ()
    return sa.select(*AUTHOR, *flags).where(users.c.username == bindparam("username"))


@cache
def article_comments(personal: bool) -> Query:
    """The newest comments on the article at :slug; one row without a comment when there are none."""
    flags = (FOLLOWING,) if personal else ()
    return (
        sa.select(comments.c.number, comments.c.created_at, comments.c.body, *AUTHOR, *flags)
        .select_from(articles)
        .outerjoin(comments, comments.c.article_id == articles.c.id)
        .outerjoin(users, users.c.id == comments.c.author_id)
        .where(articles.c.slug == SLUG)
        .order_by(comments.c.number.desc())
        .limit(sa.literal_column(str(COMMENTS_MAX)))
    )


POPULAR_TAGS = (
    sa.select(tags.c.name)
    .where(tags.c.articles_count > 0)
    .order_by(tags.c.articles_count.desc(), tags.c.name)
    .limit(sa.literal_column(str(TAGS_MAX)))
)


# --- Lists: which articles are on the page, then all of the page and the total in one statement.

PAGE_SIZES = (10, 20, 50, 100, 300)


def page_size(limit: int) -> int:
    """How many articles to ask for, at least :limit; the rest is cut off afterwards.

    The number stands in the statement's text: of a parameter, PostgreSQL's plan for all values assumes
    that it is a tenth of the table, and reads whole tables where it should look up twenty rows.
    """
    return next(size for size in PAGE_SIZES if size >= limit)


@cache
def article_page(tag: bool, author: bool, favorited: bool, personal: bool, size: int) -> Query:
    """A page from :offset on of the articles that pass these filters; see `_whole`."""
    page = _cut(_matching(tag, author, favorited), size)
    return _whole(page, _total(tag, author, favorited), personal)


@cache
def article_ids(tag: bool, author: bool, favorited: bool, size: int) -> Query:
    """The same page: total and id. One row without an id when it is empty."""
    return _ids(_cut(_matching(tag, author, favorited), size), _total(tag, author, favorited))


@cache
def feed_page(size: int) -> Query:
    """A page from :offset on of what those whom :viewer follows have written; see `_whole`."""
    return _whole(_feed_cut(size), _feed_total(), personal=True)


@cache
def feed_ids(size: int) -> Query:
    """The same page: total and id. One row without an id when it is empty."""
    return _ids(_feed_cut(size), _feed_total())


def _feed_cut(size: int) -> sa.Subquery:
    """The page of a feed.

    Of each of them no more than the newest :window + 1 can be on it: `horizon` says where those begin.
    """
    theirs, new = articles.alias("theirs"), articles.alias("new")
    oldest = nth_newest(theirs, follows.c.followee_id, bindparam("window"))
    horizon = (
        sa.select(follows.c.followee_id, oldest.label("since"))
        .where(follows.c.follower_id == VIEWER)
        .cte("horizon")
        .prefix_with("MATERIALIZED")
    )
    recent = sa.and_(new.c.author_id == horizon.c.followee_id, new.c.id >= horizon.c.since)
    return _cut(sa.select(new.c.id.label("id")).join_from(horizon, new, recent), size)


def nth_newest(theirs: Any, author_id: Any, place: ColumnElement[int]) -> ColumnElement[int]:
    """The id of an author's newest article but so many; 0 when there are fewer."""
    oldest = (
        sa.select(theirs.c.id)
        .where(theirs.c.author_id == author_id)
        .order_by(theirs.c.id.desc())
        .limit(sa.literal_column("1"))
        .offset(place)
        .scalar_subquery()
    )
    return sa.func.coalesce(oldest, sa.literal_column("0"))


def _feed_total() -> ColumnElement[int]:
    written = sa.select(users.c.articles_count).where(users.c.id == follows.c.followee_id).scalar_subquery()
    counts = sa.select(sa.func.coalesce(sa.func.sum(written), 0)).select_from(follows)
    return counts.where(follows.c.follower_id == VIEWER).scalar_subquery()


def _matching(tag: bool, author: bool, favorited: bool) -> Query:
    """The ids that pass. It begins with the table that has them in order, so a page reads a page."""
    tagged = article_tags.c.tag == bindparam("tag")
    if favorited:
        query = sa.select(favorites.c.article_id.label("id"))
        query = query.where(favorites.c.user_id == _user_named("favorited"))
        if tag:
            query = query.join(article_tags, article_tags.c.article_id == favorites.c.article_id).where(
                tagged
            )
    elif tag:
        query = sa.select(article_tags.c.article_id.label("id")).where(tagged)
    else:
        query = sa.select(articles.c.id.label("id"))
    if author:
        if favorited or tag:
            query = query.join(articles, articles.c.id == query.selected_columns.id)
        query = query.where(articles.c.author_id == _user_named("author"))
    return query


def _total(tag: bool, author: bool, favorited: bool) -> ColumnElement[int]:
    """How many pass: a count that is kept, but for the favourites of one user and for two filters at once."""
    if favorited or (tag and author):
        return (
            sa.select(sa.func.count())
            .select_from(_matching(tag, author, favorited).subquery())
            .scalar_subquery()
        )
    if tag:
        kept = sa.select(tags.c.articles_count).where(tags.c.name == bindparam("tag"))
    elif author:
        kept = sa.select(users.c.articles_count).where(users.c.username == bindparam("author"))
    else:
        kept = sa.select(counters.c.value).where(counters.c.name == "articles")
    return sa.func.coalesce(kept.scalar_subquery(), 0)


def _cut(matching: Query, size: int) -> sa.Subquery:
    """The page of it that is asked for, newest first."""
    newest_first = matching.order_by(matching.selected_columns.id.desc())
    return newest_first.limit(sa.literal_column(str(size))).offset(bindparam("offset")).subquery("page")


def _whole(page: sa.Subquery, total: ColumnElement[int], personal: bool) -> Query:
    """Total, then each article of the page with its author. An empty page is one row, for its total."""
    whole = sa.select(total.label("total")).subquery("whole")
    joined = (
        whole.outerjoin(page, sa.true())
        .outerjoin(articles, articles.c.id == page.c.id)
        .outerjoin(users, users.c.id == articles.c.author_id)
    )
    flags = (FAVORITED, FOLLOWING) if personal else ()
    return (
        sa.select(whole.c.total, *SUMMARY, articles.c.favorites_count, *AUTHOR, *flags)
        .select_from(joined)
        .order_by(page.c.id.desc())
    )


def _ids(page: sa.Subquery, total: ColumnElement[int]) -> Query:
    """Total, then the id of each article of the page. An empty page is one row, for its total."""
    whole = sa.select(total.label("total")).subquery("whole")
    joined = sa.select(whole.c.total, page.c.id).select_from(whole.outerjoin(page, sa.true()))
    return joined.order_by(page.c.id.desc())

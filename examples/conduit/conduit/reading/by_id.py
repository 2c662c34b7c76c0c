"""The queries that fill the cache: things by their ids, the same for every reader."""

from collections.abc import Iterator, Sequence
from functools import cache

import sqlalchemy as sa
from sqlalchemy import ColumnElement, bindparam

from conduit.reading.statements import AUTHOR, COMMENTS_MAX, SLUG, SUMMARY, VIEWER, Query, nth_newest
from conduit.tables import articles, comments, favorites, follows, users

ID_COUNTS = (1, 5, 20, 100)


def batches(ids: Sequence[int]) -> Iterator[dict[str, int]]:
    """Ids as the parameters of statements that take so many, or a few more: then the last is repeated.

    IN with a list of its own length each time would be another text each time, which neither SQLAlchemy
    nor the server could prepare.
    """
    for begin in range(0, len(ids), ID_COUNTS[-1]):
        batch = ids[begin : begin + ID_COUNTS[-1]]
        count = next(count for count in ID_COUNTS if count >= len(batch))
        yield {f"id{place}": batch[min(place, len(batch) - 1)] for place in range(count)}


def _among(column: sa.Column[int], count: int) -> ColumnElement[bool]:
    return column.in_([bindparam(f"id{place}", type_=sa.BigInteger) for place in range(count)])


NEWEST_OF_EACH = 20
"""So many articles of each author are kept for the feeds of those who follow them."""


@cache
def written_pieces(count: int) -> Query:
    """Authors, by id: how many articles each has written, and the newest ones' ids, a row for each; one row
    without an id for who has none."""
    theirs, new = articles.alias("theirs"), articles.alias("new")
    oldest = nth_newest(theirs, users.c.id, sa.literal_column(str(NEWEST_OF_EACH - 1)))
    horizon = (
        sa.select(users.c.id, users.c.articles_count, oldest.label("since"))
        .where(_among(users.c.id, count))
        .cte("horizon")
        .prefix_with("MATERIALIZED")
    )
    recent = sa.and_(new.c.author_id == horizon.c.id, new.c.id >= horizon.c.since)
    return (
        sa.select(horizon.c.id, horizon.c.articles_count, new.c.id)
        .select_from(horizon.outerjoin(new, recent))
        .order_by(new.c.id.desc())
    )


ARTICLE_AT = sa.select(articles.c.id, articles.c.body).where(articles.c.slug == SLUG)


@cache
def summary_pieces(count: int) -> Query:
    """Articles as lists show them, by id."""
    columns = (articles.c.id, articles.c.author_id, *SUMMARY, articles.c.favorites_count)
    return sa.select(*columns).where(_among(articles.c.id, count))


@cache
def profile_pieces(count: int) -> Query:
    """Users, by id."""
    return sa.select(users.c.id, *AUTHOR).where(_among(users.c.id, count))


COMMENT_PIECES = (
    sa.select(comments.c.author_id, comments.c.number, comments.c.created_at, comments.c.body)
    .where(comments.c.article_id == bindparam("article_id"))
    .order_by(comments.c.number.desc())
    .limit(sa.literal_column(str(COMMENTS_MAX)))
)
USER_NAMED = sa.select(users.c.id).where(users.c.username == bindparam("username"))
FAVORITES_OF = sa.select(favorites.c.article_id).where(favorites.c.user_id == VIEWER).limit(bindparam("most"))
FOLLOWED_BY = sa.select(follows.c.followee_id).where(follows.c.follower_id == VIEWER).limit(bindparam("most"))

"""The tables, as statements need them; migrations/ makes them. Three choices make the API fast:

    counts   are kept where they are read (an article's favourites, a tag's articles, ...) and changed in
             the transaction that changes what they count, so no answer ever counts rows
    times    are the text that the API answers, "2026-01-31T12:00:00.000000Z"; newest first is ids first
    tag_list is the JSON that the API answers; article_tags is the same for finding articles

Whoever writes takes row locks in this order: article, users by id, tags by name, counters. So two
writers may wait for each other, but never in a circle.
"""

from datetime import UTC, datetime

import sqlalchemy as sa

metadata = sa.MetaData()

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("username", sa.Text, nullable=False, unique=True),
    sa.Column("email", sa.Text, nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("bio", sa.Text),
    sa.Column("image", sa.Text),
    sa.Column("articles_count", sa.Integer, nullable=False),
)

follows = sa.Table(
    "follows",
    metadata,
    sa.Column("follower_id", sa.BigInteger, primary_key=True),
    sa.Column("followee_id", sa.BigInteger, primary_key=True),
)

articles = sa.Table(
    "articles",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("author_id", sa.BigInteger, nullable=False),
    sa.Column("slug", sa.Text, nullable=False, unique=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tag_list", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Text, nullable=False),
    sa.Column("favorites_count", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # last: SQLite reads a row only as far as it must
)

favorites = sa.Table(
    "favorites",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True),
    sa.Column("article_id", sa.BigInteger, primary_key=True),
)

comments = sa.Table(
    "comments",
    metadata,
    sa.Column("article_id", sa.BigInteger, primary_key=True),
    # The API's "id": when it was made, in microseconds since 1970, since JavaScript rounds 64-bit numbers.
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("author_id", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("articles_count", sa.Integer, nullable=False),
)

article_tags = sa.Table(
    "article_tags",
    metadata,
    sa.Column("tag", sa.Text, primary_key=True),
    sa.Column("article_id", sa.BigInteger, primary_key=True),
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)

avatars = sa.Table(
    "avatars",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("size", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


def now() -> str:
    """This moment as the API tells it."""
    return as_text(datetime.now(UTC))


def as_text(moment: datetime) -> str:
    """A moment as the API tells it: to the microsecond, so that two updates differ."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

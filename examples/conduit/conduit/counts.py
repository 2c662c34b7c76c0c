"""Counts that are kept where they are read, and the rows that they count, changed together.

Locks are taken in the order that tables.py names: users by id, tags by name, counters.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too

from conduit.blocks import Writer
from conduit.problems import unauthorized
from conduit.tables import article_tags, counters, follows, tags, users

BY = bindparam("by", type_=sa.Integer)
ARTICLE_ID = bindparam("article_id", type_=sa.BigInteger)
USER_ID = bindparam("user_id", type_=sa.BigInteger)

COUNT_ARTICLE = sa.update(counters).where(counters.c.name == "articles").values(value=counters.c.value + BY)
COUNT_WRITTEN = (
    sa.update(users).where(users.c.id == USER_ID).values(articles_count=users.c.articles_count + BY)
)
COUNT_OWN = COUNT_WRITTEN.returning(
    users.c.username,
    users.c.bio,
    users.c.image,
    sa.exists().where(follows.c.follower_id == USER_ID, follows.c.followee_id == USER_ID),
)

ADD_TAG = insert(article_tags)
COUNT_TAG = insert(tags)
COUNT_TAG = COUNT_TAG.on_conflict_do_update(
    index_elements=[tags.c.name],
    set_={"articles_count": tags.c.articles_count + COUNT_TAG.excluded.articles_count},
)
REMOVE_TAG = sa.delete(article_tags).where(
    article_tags.c.tag == bindparam("tag"), article_tags.c.article_id == ARTICLE_ID
)


async def article_added(tx: Writer, article_id: int, author_id: int, names: list[str]) -> Any:
    """Count an article that has just been stored; returns its author as they see themselves. Raises
    Problem 401 when they are no more."""
    author = await tx.one(COUNT_OWN, user_id=author_id, by=1)
    if author is None:
        raise unauthorized("is invalid")
    await tags_changed(tx, article_id, added=names)
    await tx.execute(COUNT_ARTICLE, by=1)
    return author


async def article_leaves(tx: Writer, article_id: int, author_id: int, names: list[str]) -> None:
    """Uncount an article, which is locked and about to be deleted."""
    await tx.execute(COUNT_WRITTEN, user_id=author_id, by=-1)
    await tags_changed(tx, article_id, removed=names)
    await tx.execute(COUNT_ARTICLE, by=-1)


async def tags_changed(
    tx: Writer, article_id: int, *, removed: Sequence[str] = (), added: Sequence[str] = ()
) -> None:
    """Take these tags from an article and give it those. The counts change in the order of the names,
    whichever way: two writers would wait for each other otherwise."""
    steps = sorted([*((name, -1) for name in removed), *((name, 1) for name in added)])
    await tx.many(COUNT_TAG, [{"name": name, "articles_count": by} for name, by in steps])
    await tx.many(REMOVE_TAG, [{"tag": name, "article_id": article_id} for name in removed])
    await tx.many(ADD_TAG, [{"tag": name, "article_id": article_id} for name in added])

"""What can change (changes.py) by the rows that say so, whoever has changed them: psql, another program.

Asked for the tables that `[cache] follow_changes` names, with a row as it was and as it is. What the
application writes it invalidates itself, and with its transaction: for that nobody is asked here.
"""

from typing import Any

from conduit import changes, og


@og.cache.changes("articles")
def shown(row: Any) -> list[str]:
    return [changes.article(row["id"])]


@og.cache.changes("articles", columns=["slug", "body"])
def read(row: Any) -> list[str]:
    return [changes.slug(row["slug"])]


@og.cache.changes("articles", columns=["author_id"])
def listed(row: Any) -> list[str]:
    return [changes.ARTICLES, changes.written(row["author_id"])]


@og.cache.changes("article_tags")
def tagged(row: Any) -> list[str]:
    return [changes.tagged(row["tag"])]


@og.cache.changes("tags")
def popular(row: Any) -> list[str]:
    return [changes.TAGS]


@og.cache.changes("comments")
def commented(row: Any) -> list[str]:
    return [changes.comments(row["article_id"])]


@og.cache.changes("favorites")
def favorited(row: Any) -> list[str]:
    return [changes.favorites(row["user_id"])]


@og.cache.changes("follows")
def followed(row: Any) -> list[str]:
    return [changes.follows(row["follower_id"])]


@og.cache.changes("users", columns=["username", "bio", "image"])
def profiled(row: Any) -> list[str]:
    return [changes.profile(row["id"])]


@og.cache.changes("users", columns=["username"])
def named(row: Any) -> list[str]:
    return [changes.username(row["username"])]

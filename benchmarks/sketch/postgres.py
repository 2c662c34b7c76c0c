"""The sketch's store on asyncpg: its pool without the reset, which costs a round trip each time.

`OFFSET 0` inside LATERAL keeps the planner from turning 20 look-ups by primary key into a hash join
over whole tables, which it does in the generic plan of a prepared statement (it takes LIMIT $1 for a
tenth of the table).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from benchmarks.sketch.store import Row, now

POOL = 10

ITEM = "a.slug, a.title, a.description, a.tags, a.created_at, a.updated_at, a.favourites_count"
AUTHOR = "u.username, u.bio, u.image"
USER = "LATERAL (SELECT username, bio, image FROM users WHERE id = a.author_id OFFSET 0) u"
ARTICLE = "LATERAL (SELECT * FROM articles WHERE id = i.article_id OFFSET 0) a"
FAVOURITED = "EXISTS (SELECT FROM favourites f WHERE f.user_id = {user} AND f.article_id = a.id)"
FOLLOWING = "EXISTS (SELECT FROM follows w WHERE w.follower_id = {user} AND w.followed_id = a.author_id)"

# Where the articles of a page come from ($1 limit, $2 offset, $3 the filter) and how many there are.
SOURCES = {
    "all": "(SELECT * FROM articles ORDER BY id DESC LIMIT $1 OFFSET $2) a",
    "tag": "(SELECT article_id FROM article_tags WHERE tag = $3 ORDER BY article_id DESC"
    f" LIMIT $1 OFFSET $2) i, {ARTICLE}",
    "author": "(SELECT * FROM articles WHERE author_id = (SELECT id FROM users WHERE username = $3)"
    " ORDER BY id DESC LIMIT $1 OFFSET $2) a",
    "favorited": "(SELECT article_id FROM favourites WHERE user_id = (SELECT id FROM users WHERE"
    f" username = $3) ORDER BY article_id DESC LIMIT $1 OFFSET $2) i, {ARTICLE}",
    "feed": "(SELECT c.id AS article_id FROM follows w CROSS JOIN LATERAL (SELECT id FROM articles"
    " WHERE author_id = w.followed_id ORDER BY id DESC LIMIT $1::bigint + $2::bigint) c"
    f" WHERE w.follower_id = $3 ORDER BY c.id DESC LIMIT $1 OFFSET $2) i, {ARTICLE}",
}
TOTALS = {
    "all": "SELECT articles FROM totals",
    "tag": "SELECT articles_count FROM tags WHERE name = $3",
    "author": "SELECT articles_count FROM users WHERE username = $3",
    "favorited": "SELECT count(*) FROM favourites WHERE user_id = (SELECT id FROM users WHERE username = $3)",
    "feed": "SELECT coalesce(sum(u.articles_count), 0) FROM follows w, LATERAL (SELECT articles_count"
    " FROM users WHERE id = w.followed_id OFFSET 0) u WHERE w.follower_id = $3",
}


def _page(kind: str, *, signed_in: bool) -> str:
    place = {"all": "$3", "feed": "$3"}.get(kind, "$4")
    favourited = FAVOURITED.format(user=place) if signed_in else "false"
    following = FOLLOWING.format(user=place) if signed_in and kind != "feed" else "false"
    if kind == "feed":
        following = "true"
    columns = f"({TOTALS[kind]})::int, {ITEM}, {favourited}, {AUTHOR}, {following}"
    order = "a.id" if kind in ("all", "author") else "i.article_id"
    return f"SELECT {columns} FROM {SOURCES[kind]}, {USER} ORDER BY {order} DESC"


def _article(where: str, user: str | None, favourited: str = FAVOURITED, count: str = "") -> str:
    """One article with its body."""
    item = ITEM.replace("a.favourites_count", count) if count else ITEM
    flags = (
        (favourited.format(user=user), FOLLOWING.format(user=user))
        if user is not None
        else ("false", "false")
    )
    return (
        f"SELECT {item}, {flags[0]}, {AUTHOR}, {flags[1]}, a.body"
        f" FROM articles a JOIN users u ON u.id = a.author_id WHERE {where}"
    )


PAGES = {(kind, signed): _page(kind, signed_in=signed) for kind in SOURCES for signed in (False, True)}
TOTALS_ALONE = {
    kind: f"SELECT ({sql.replace('$3', '$1')})::int" if "$3" in sql else sql for kind, sql in TOTALS.items()
}
GET = {False: _article("a.slug = $1", None), True: _article("a.slug = $1", "$2")}

COMMENTS = (
    f"SELECT c.id, c.created_at, c.body, {AUTHOR}, {{following}}"
    " FROM articles a LEFT JOIN LATERAL (SELECT * FROM comments WHERE article_id = a.id"
    " ORDER BY id DESC OFFSET 0) c ON true"
    " LEFT JOIN LATERAL (SELECT username, bio, image FROM users WHERE id = c.author_id OFFSET 0) u ON true"
    " WHERE a.slug = $1 ORDER BY c.id DESC"
)
GET_COMMENTS = {
    False: COMMENTS.format(following="false"),
    True: COMMENTS.format(
        following="EXISTS (SELECT FROM follows w WHERE w.follower_id = $2 AND w.followed_id = c.author_id)"
    ),
}

FAVOURITE = (
    "WITH added AS (INSERT INTO favourites SELECT $2, id FROM articles WHERE slug = $1"
    " ON CONFLICT DO NOTHING RETURNING article_id), raised AS (UPDATE articles"
    " SET favourites_count = favourites_count + 1 FROM added WHERE id = added.article_id"
    " RETURNING favourites_count) "
) + _article(
    "a.slug = $1",
    "$2",
    favourited="true",
    count="coalesce((SELECT favourites_count FROM raised), a.favourites_count)",
)
UNFAVOURITE = (
    "WITH gone AS (DELETE FROM favourites WHERE user_id = $2 AND article_id ="
    " (SELECT id FROM articles WHERE slug = $1) RETURNING article_id), lowered AS (UPDATE articles"
    " SET favourites_count = favourites_count - 1 FROM gone WHERE id = gone.article_id"
    " RETURNING favourites_count) "
) + _article(
    "a.slug = $1",
    "$2",
    favourited="false",
    count="coalesce((SELECT favourites_count FROM lowered), a.favourites_count)",
)
ADD_ARTICLE = (
    "WITH made AS (INSERT INTO articles (slug, title, description, body, tags, author_id, created_at,"
    " updated_at) VALUES ($2, $3, $4, $5, $6, $1, $8, $8) RETURNING *),"
    " counted AS (INSERT INTO tags SELECT unnest($7::text[]), 1 ON CONFLICT (name) DO UPDATE"
    " SET articles_count = tags.articles_count + 1),"
    " tagged AS (INSERT INTO article_tags SELECT unnest($7::text[]), id FROM made),"
    " mine AS (UPDATE users SET articles_count = articles_count + 1 WHERE id = $1),"
    " total AS (UPDATE totals SET articles = articles + 1)"
    f" SELECT {ITEM}, false, {AUTHOR}, false, a.body FROM made a JOIN users u ON u.id = a.author_id"
)
CHANGE_ARTICLE = (
    "WITH found AS (SELECT id FROM articles WHERE slug = $1), changed AS (UPDATE articles"
    " SET description = coalesce($3, description), body = coalesce($4, body), updated_at = $5"
    " FROM found WHERE articles.id = found.id AND author_id = $2 RETURNING articles.*)"
    f" SELECT {ITEM}, {FAVOURITED.format(user='$2')}, {AUTHOR}, false, a.body"
    " FROM found LEFT JOIN changed a ON true LEFT JOIN users u ON u.id = a.author_id"
)
ADD_COMMENT = (
    "WITH made AS (INSERT INTO comments (article_id, author_id, body, created_at)"
    " SELECT id, $2, $3, $4 FROM articles WHERE slug = $1 RETURNING *)"
    f" SELECT c.id, c.created_at, c.body, {AUTHOR}, false FROM made c JOIN users u ON u.id = c.author_id"
)
FOLLOW = (
    "WITH added AS (INSERT INTO follows SELECT $2, id FROM users WHERE username = $1"
    " ON CONFLICT DO NOTHING) SELECT username, bio, image FROM users WHERE username = $1"
)
UNFOLLOW = (
    "WITH gone AS (DELETE FROM follows WHERE follower_id = $2 AND followed_id ="
    " (SELECT id FROM users WHERE username = $1)) SELECT username, bio, image FROM users WHERE username = $1"
)
LOGIN = "SELECT id, password, username, bio, image FROM users WHERE email = $1"


async def _keep(connection: Any) -> None:
    """In place of the pool's RESET: nothing here leaves session state."""


class PostgresStore:
    """See store.Store."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: Any = None

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self._url, min_size=POOL, max_size=POOL, reset=_keep)

    async def close(self) -> None:
        await self._pool.close()

    async def login(self, email: str) -> Row | None:
        found: Row | None = await self._pool.fetchrow(LOGIN, email)
        return found

    async def page(
        self, kind: str, value: str | int | None, user: int | None, limit: int, offset: int
    ) -> tuple[int, Sequence[Row]]:
        given = () if value is None else (value,)
        asker = () if user is None or kind == "feed" else (user,)
        rows = await self._pool.fetch(PAGES[kind, user is not None], limit, offset, *given, *asker)
        if rows:
            return rows[0][0], rows
        return await self._pool.fetchval(TOTALS_ALONE[kind], *given) or 0, rows

    async def article(self, slug: str, user: int | None) -> Row | None:
        found: Row | None = (
            await self._pool.fetchrow(GET[False], slug)
            if user is None
            else await self._pool.fetchrow(GET[True], slug, user)
        )
        return found

    async def comments(self, slug: str, user: int | None) -> Sequence[Row]:
        found: Sequence[Row] = (
            await self._pool.fetch(GET_COMMENTS[False], slug)
            if user is None
            else await self._pool.fetch(GET_COMMENTS[True], slug, user)
        )
        return found

    async def tags(self) -> list[str]:
        return [row[0] for row in await self._pool.fetch("SELECT name FROM tags ORDER BY name")]

    async def favourite(self, slug: str, user: int) -> Row | None:
        found: Row | None = await self._pool.fetchrow(FAVOURITE, slug, user)
        return found

    async def unfavourite(self, slug: str, user: int) -> Row | None:
        found: Row | None = await self._pool.fetchrow(UNFAVOURITE, slug, user)
        return found

    async def add_article(
        self, user: int, slug: str, title: str, description: str, body: str, tags: list[str]
    ) -> Row:
        text = json.dumps(tags, separators=(",", ":"))
        made: Row = await self._pool.fetchrow(
            ADD_ARTICLE, user, slug, title, description, body, text, tags, now()
        )
        return made

    async def change_article(
        self, slug: str, user: int, description: str | None, body: str | None
    ) -> tuple[bool, Row | None]:
        row = await self._pool.fetchrow(CHANGE_ARTICLE, slug, user, description, body, now())
        if row is None:
            return False, None
        return True, None if row[0] is None else row

    async def add_comment(self, slug: str, user: int, body: str) -> Row | None:
        found: Row | None = await self._pool.fetchrow(ADD_COMMENT, slug, user, body, now())
        return found

    async def follow(self, username: str, user: int) -> Row | None:
        found: Row | None = await self._pool.fetchrow(FOLLOW, username, user)
        return found

    async def unfollow(self, username: str, user: int) -> Row | None:
        found: Row | None = await self._pool.fetchrow(UNFOLLOW, username, user)
        return found

"""The sketch's store on sqlite3 in the process: one reader, one writer, both on the event loop.

A commit waits for the disk there, too (about 0.2 ms): a thread would cost more than it frees.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Raw

from benchmarks.sketch.store import Row, now

ITEM = "a.slug, a.title, a.description, a.tags, a.created_at, a.updated_at, a.favourites_count"
AUTHOR = "u.username, u.bio, u.image"
FAVOURITED = "EXISTS (SELECT 1 FROM favourites f WHERE f.user_id = :user AND f.article_id = a.id)"
FOLLOWING = "EXISTS (SELECT 1 FROM follows w WHERE w.follower_id = :user AND w.followed_id = a.author_id)"

SOURCES = {
    "all": "articles a CROSS JOIN users u ON u.id = a.author_id",
    "tag": "article_tags i CROSS JOIN articles a ON a.id = i.article_id"
    " CROSS JOIN users u ON u.id = a.author_id WHERE i.tag = :value",
    "author": "users u CROSS JOIN articles a ON a.author_id = u.id WHERE u.username = :value",
    "favorited": "favourites i CROSS JOIN articles a ON a.id = i.article_id"
    " CROSS JOIN users u ON u.id = a.author_id"
    " WHERE i.user_id = (SELECT id FROM users WHERE username = :value)",
    "feed": "(SELECT a.id AS article_id FROM follows w CROSS JOIN articles a ON a.author_id = w.followed_id"
    " WHERE w.follower_id = :value ORDER BY a.id DESC LIMIT :limit OFFSET :offset) i"
    " CROSS JOIN articles a ON a.id = i.article_id CROSS JOIN users u ON u.id = a.author_id",
}
ORDERS = {"all": "a.id", "tag": "i.article_id", "author": "a.id", "favorited": "i.article_id"}
TOTALS = {
    "all": "SELECT articles FROM totals",
    "tag": "SELECT articles_count FROM tags WHERE name = :value",
    "author": "SELECT articles_count FROM users WHERE username = :value",
    "favorited": "SELECT count(*) FROM favourites WHERE user_id ="
    " (SELECT id FROM users WHERE username = :value)",
    "feed": "SELECT coalesce(sum(u.articles_count), 0) FROM follows w CROSS JOIN users u"
    " ON u.id = w.followed_id WHERE w.follower_id = :value",
}


def _page(kind: str, *, signed_in: bool) -> str:
    favourited, following = (FAVOURITED, FOLLOWING) if signed_in else ("0", "0")
    if kind == "feed":
        following = "1"
    columns = f"({TOTALS[kind]}), {ITEM}, {favourited}, {AUTHOR}, {following}"
    window = (
        f"ORDER BY {ORDERS[kind]} DESC LIMIT :limit OFFSET :offset"
        if kind in ORDERS
        else "ORDER BY i.article_id DESC"
    )
    return f"SELECT {columns} FROM {SOURCES[kind]} {window}"


def _article(signed_in: bool) -> str:
    favourited, following = (FAVOURITED, FOLLOWING) if signed_in else ("0", "0")
    return (
        f"SELECT {ITEM}, {favourited}, {AUTHOR}, {following}, a.body"
        " FROM articles a CROSS JOIN users u ON u.id = a.author_id WHERE a.slug = :slug"
    )


def _comments(signed_in: bool) -> str:
    following = FOLLOWING.replace("a.author_id", "c.author_id") if signed_in else "0"
    return (
        f"SELECT c.id, c.created_at, c.body, {AUTHOR}, {following} FROM articles a"
        " LEFT JOIN comments c ON c.article_id = a.id LEFT JOIN users u ON u.id = c.author_id"
        " WHERE a.slug = :slug ORDER BY c.id DESC"
    )


PAGES = {(kind, signed): _page(kind, signed_in=signed) for kind in SOURCES for signed in (False, True)}
TAGS = "SELECT json_group_array(name) FROM (SELECT name FROM tags ORDER BY name)"
GET = {signed: _article(signed) for signed in (False, True)}
GET_COMMENTS = {signed: _comments(signed) for signed in (False, True)}


class SQLiteStore:
    """See store.Store."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader: Any = None
        self._writer: Any = None

    async def open(self) -> None:
        self._reader, self._writer = self._connect(), self._connect()
        self._reader.execute("PRAGMA query_only = ON")

    async def close(self) -> None:
        self._reader.close()
        self._writer.close()

    async def login(self, email: str) -> Row | None:
        return self._one("SELECT id, password, username, bio, image FROM users WHERE email = ?", (email,))

    async def page(
        self, kind: str, value: str | int | None, user: int | None, limit: int, offset: int
    ) -> tuple[int, Sequence[Row]]:
        given = {"value": value, "user": user, "limit": limit, "offset": offset}
        rows = self._reader.execute(PAGES[kind, user is not None], given).fetchall()
        if rows:
            return rows[0][0], rows
        total = self._one(TOTALS[kind], given)
        return (total[0] if total is not None else 0), rows

    async def article(self, slug: str, user: int | None) -> Row | None:
        return self._one(GET[user is not None], {"slug": slug, "user": user})

    async def comments(self, slug: str, user: int | None) -> Sequence[Row]:
        given = {"slug": slug, "user": user}
        found: Sequence[Row] = self._reader.execute(GET_COMMENTS[user is not None], given).fetchall()
        return found

    async def tags(self) -> Raw:
        return Raw(self._reader.execute(TAGS).fetchone()[0])

    async def favourite(self, slug: str, user: int) -> Row | None:
        with self._transaction() as write:
            added = write(
                "INSERT INTO favourites SELECT ?, id FROM articles WHERE slug = ? ON CONFLICT DO NOTHING",
                (user, slug),
            )
            if added.rowcount:
                write("UPDATE articles SET favourites_count = favourites_count + 1 WHERE slug = ?", (slug,))
            found: Row | None = write(GET[True], {"slug": slug, "user": user}).fetchone()
        return found

    async def unfavourite(self, slug: str, user: int) -> Row | None:
        with self._transaction() as write:
            gone = write(
                "DELETE FROM favourites WHERE user_id = ?"
                " AND article_id = (SELECT id FROM articles WHERE slug = ?)",
                (user, slug),
            )
            if gone.rowcount:
                write("UPDATE articles SET favourites_count = favourites_count - 1 WHERE slug = ?", (slug,))
            found: Row | None = write(GET[True], {"slug": slug, "user": user}).fetchone()
        return found

    async def add_article(
        self, user: int, slug: str, title: str, description: str, body: str, tags: list[str]
    ) -> Row:
        moment, text = now(), json.dumps(tags, separators=(",", ":"))
        with self._transaction() as write:
            (number,) = write(
                "INSERT INTO articles"
                " (slug, title, description, body, tags, author_id, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                (slug, title, description, body, text, user, moment, moment),
            ).fetchone()
            for tag in tags:
                write(
                    "INSERT INTO tags VALUES (?, 1) ON CONFLICT DO UPDATE"
                    " SET articles_count = articles_count + 1",
                    (tag,),
                )
                write("INSERT INTO article_tags VALUES (?, ?)", (tag, number))
            write("UPDATE users SET articles_count = articles_count + 1 WHERE id = ?", (user,))
            write("UPDATE totals SET articles = articles + 1", ())
            found: Row = write(GET[True], {"slug": slug, "user": user}).fetchone()
        return found

    async def change_article(
        self, slug: str, user: int, description: str | None, body: str | None
    ) -> tuple[bool, Row | None]:
        with self._transaction() as write:
            owner = write("SELECT author_id FROM articles WHERE slug = ?", (slug,)).fetchone()
            if owner is None or owner[0] != user:
                return owner is not None, None
            write(
                "UPDATE articles SET description = coalesce(?, description), body = coalesce(?, body),"
                " updated_at = ? WHERE slug = ?",
                (description, body, now(), slug),
            )
            found: Row = write(GET[True], {"slug": slug, "user": user}).fetchone()
        return True, found

    async def add_comment(self, slug: str, user: int, body: str) -> Row | None:
        with self._transaction() as write:
            made = write(
                "INSERT INTO comments (article_id, author_id, body, created_at)"
                " SELECT id, ?, ?, ? FROM articles WHERE slug = ? RETURNING id, created_at, body",
                (user, body, now(), slug),
            ).fetchone()
            if made is None:
                return None
            author = write("SELECT username, bio, image FROM users WHERE id = ?", (user,)).fetchone()
        return (*made, *author, 0)

    async def follow(self, username: str, user: int) -> Row | None:
        with self._transaction() as write:
            write(
                "INSERT INTO follows SELECT ?, id FROM users WHERE username = ? ON CONFLICT DO NOTHING",
                (user, username),
            )
            return self._profile(write, username)

    async def unfollow(self, username: str, user: int) -> Row | None:
        with self._transaction() as write:
            write(
                "DELETE FROM follows WHERE follower_id = ?"
                " AND followed_id = (SELECT id FROM users WHERE username = ?)",
                (user, username),
            )
            return self._profile(write, username)

    def _profile(self, write: Any, username: str) -> Row | None:
        found: Row | None = write(
            "SELECT username, bio, image FROM users WHERE username = ?", (username,)
        ).fetchone()
        return found

    def _one(self, sql: str, given: Any) -> Row | None:
        rows: list[Row] = self._reader.execute(sql, given).fetchall()
        return rows[0] if rows else None

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer.execute
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, cached_statements=512)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        for pragma in ("cache_size = -8000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

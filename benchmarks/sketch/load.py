"""The benchmark's data in the sketch's tables."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.data import Data

HERE = Path(__file__).parent
Rows = Iterable[Sequence[Any]]


async def into_postgres(url: str, data: Data, password_hash: str) -> None:
    """Make the tables and fill them."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute((HERE / "postgres.sql").read_text())
        for table, (columns, rows) in _tables(data, password_hash).items():
            await connection.copy_records_to_table(table, records=rows, columns=columns)
        for table in ("users", "articles", "comments"):
            await connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
            )
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def into_sqlite(path: Path, data: Data, password_hash: str) -> None:
    """Make the tables and fill them."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript((HERE / "sqlite.sql").read_text())
    for table, (columns, rows) in _tables(data, password_hash).items():
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)
    connection.commit()
    connection.execute("ANALYZE")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _tables(data: Data, password: str) -> dict[str, tuple[list[str], Rows]]:
    tagged = [(tag, article.id) for article in data.articles for tag in article.tags]
    return {
        "users": (
            ["id", "username", "email", "password", "bio", "image", "articles_count", "created_at"],
            [
                (
                    *(u.id, u.username, u.email, password, u.bio, u.image),
                    *(data.articles_count.get(u.id, 0), _text(u.created_ms)),
                )
                for u in data.users
            ],
        ),
        "articles": (
            [
                *("id", "slug", "title", "description", "body", "tags", "author_id"),
                *("favourites_count", "created_at", "updated_at"),
            ],
            [
                (
                    *(a.id, a.slug, a.title, a.description, a.body, _json(a.tags), a.author),
                    *(data.favourites_count.get(a.id, 0), _text(a.created_ms), _text(a.updated_ms)),
                )
                for a in data.articles
            ],
        ),
        "tags": (["name", "articles_count"], list(data.tags.items())),
        "article_tags": (["tag", "article_id"], sorted(tagged)),
        "favourites": (["user_id", "article_id"], data.favourites),
        "follows": (["follower_id", "followed_id"], data.follows),
        "comments": (
            ["id", "article_id", "author_id", "body", "created_at"],
            [(c.id, c.article, c.author, c.body, _text(c.created_ms)) for c in data.comments],
        ),
        "totals": (["articles"], [(len(data.articles),)]),
    }


def _text(milliseconds: int) -> str:
    return (
        datetime.fromtimestamp(milliseconds / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _json(tags: Sequence[str]) -> str:
    return json.dumps(tags, separators=(",", ":"))

"""The benchmark's data in the example's tables, after the example's own migrations."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from benchmarks.data import Data
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.ids import COUNTER_BITS, EPOCH_MS, WORKER_BITS

BATCH = 5_000


async def into(url: str, migrations: Path, data: Data, password_hash: str) -> None:
    """Make the tables and fill them. `url` begins with postgresql: or sqlite:."""
    await migrate(url, migrations)
    kind = "sqlite" if url.startswith("sqlite") else "postgresql"
    driver = {"sqlite": "sqlite+aiosqlite:", "postgresql": "postgresql+asyncpg:"}[kind]
    engine = create_async_engine(url.replace(f"{kind}:", driver, 1))
    async with engine.begin() as connection:
        await _fill(connection, data, password_hash)
    async with engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(text("ANALYZE" if kind == "sqlite" else "VACUUM ANALYZE"))
    await engine.dispose()


async def _fill(connection: AsyncConnection, data: Data, password_hash: str) -> None:
    metadata = MetaData()
    await connection.run_sync(metadata.reflect)
    for name, rows in _tables(data, password_hash):
        for start in range(0, len(rows), BATCH):
            await connection.execute(metadata.tables[name].insert(), rows[start : start + BATCH])
    await connection.execute(
        text("UPDATE counters SET value = :count WHERE name = 'articles'"), {"count": len(data.articles)}
    )


def _tables(data: Data, password: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    users = {user.id: _id(user.created_ms, user.id) for user in data.users}
    articles = {article.id: _id(article.created_ms, article.id) for article in data.articles}
    yield (
        "users",
        [
            {
                "id": users[u.id],
                "username": u.username,
                "email": u.email,
                "password_hash": password,
                "bio": u.bio,
                "image": u.image,
                "articles_count": data.articles_count.get(u.id, 0),
            }
            for u in data.users
        ],
    )
    yield (
        "articles",
        [
            {
                "id": articles[a.id],
                "author_id": users[a.author],
                "slug": a.slug,
                "title": a.title,
                "description": a.description,
                "body": a.body,
                "tag_list": json.dumps(a.tags, separators=(",", ":")),
                "created_at": _text(a.created_ms),
                "updated_at": _text(a.updated_ms),
                "favorites_count": data.favourites_count.get(a.id, 0),
            }
            for a in data.articles
        ],
    )
    yield "tags", [{"name": name, "articles_count": count} for name, count in data.tags.items()]
    yield "article_tags", _tagged(data, articles)
    yield "favorites", [{"user_id": users[u], "article_id": articles[a]} for u, a in data.favourites]
    yield "follows", [{"follower_id": users[u], "followee_id": users[v]} for u, v in data.follows]
    yield "comments", _comments(data, users, articles)


def _comments(data: Data, users: dict[int, int], articles: dict[int, int]) -> list[dict[str, Any]]:
    numbers: dict[int, int] = defaultdict(int)
    rows = []
    for comment in data.comments:
        numbers[comment.article] += 1
        rows.append(
            {
                "article_id": articles[comment.article],
                "number": numbers[comment.article],
                "author_id": users[comment.author],
                "created_at": _text(comment.created_ms),
                "body": comment.body,
            }
        )
    return rows


def _tagged(data: Data, articles: dict[int, int]) -> list[dict[str, Any]]:
    pairs: Sequence[tuple[str, int]] = sorted((tag, articles[a.id]) for a in data.articles for tag in a.tags)
    return [{"tag": tag, "article_id": article} for tag, article in pairs]


def _id(created_ms: int, number: int) -> int:
    """As og.ids would have made it at that time."""
    return (created_ms - EPOCH_MS) << (WORKER_BITS + COUNTER_BITS) | number % (1 << COUNTER_BITS)


def _text(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

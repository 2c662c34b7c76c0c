"""The benchmark's data in the conventional version's tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import Table

from benchmarks.conventional import models
from benchmarks.data import Data

BATCH = 5_000


async def into(url: str, data: Data, password_hash: str) -> None:
    """Make the tables and fill them. `url` begins with postgresql: or sqlite:."""
    kind = "sqlite" if url.startswith("sqlite") else "postgresql"
    driver = {"sqlite": "sqlite+aiosqlite:", "postgresql": "postgresql+asyncpg:"}[kind]
    engine = create_async_engine(url.replace(f"{kind}:", driver, 1))
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
        for table, rows in _tables(data, password_hash):
            for start in range(0, len(rows), BATCH):
                await connection.execute(insert(table), rows[start : start + BATCH])
        if kind == "postgresql":
            await connection.run_sync(_set_sequences)
    async with engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(text("ANALYZE" if kind == "sqlite" else "VACUUM ANALYZE"))
    await engine.dispose()


def _set_sequences(connection: Connection) -> None:
    for table in ("users", "articles", "comments", "tags"):
        connection.exec_driver_sql(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
        )


def _tables(data: Data, password: str) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    tags = {name: number for number, name in enumerate(data.tags, 1)}
    yield (
        models.User.__table__,  # type: ignore[misc]
        [
            {
                "id": u.id,
                "username": u.username,
                "email": u.email,
                "password": password,
                "bio": u.bio,
                "image": u.image,
                "created_at": _moment(u.created_ms),
            }
            for u in data.users
        ],
    )
    yield models.Tag.__table__, [{"id": number, "name": name} for name, number in tags.items()]  # type: ignore[misc]
    yield (
        models.Article.__table__,  # type: ignore[misc]
        [
            {
                "id": a.id,
                "slug": a.slug,
                "title": a.title,
                "description": a.description,
                "body": a.body,
                "author_id": a.author,
                "created_at": _moment(a.created_ms),
                "updated_at": _moment(a.updated_ms),
            }
            for a in data.articles
        ],
    )
    yield (
        models.article_tags,
        [{"article_id": a.id, "tag_id": tags[tag]} for a in data.articles for tag in a.tags],
    )
    yield models.favourites, [{"user_id": user, "article_id": article} for user, article in data.favourites]
    yield models.follows, [{"follower_id": one, "followed_id": other} for one, other in data.follows]
    yield (
        models.Comment.__table__,  # type: ignore[misc]
        [
            {
                "id": c.id,
                "article_id": c.article,
                "author_id": c.author,
                "body": c.body,
                "created_at": _moment(c.created_ms),
            }
            for c in data.comments
        ],
    )


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)

"""The session of a request, and the user behind its token."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from fastapi import Depends, Header
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.conventional.models import User

KEY = secrets.token_hex(32)


class Problem(Exception):
    """An error in the specification's form."""

    def __init__(self, status: int, field: str, problem: str) -> None:
        self.status = status
        self.body = {"errors": {field: [problem]}}


def _engine(url: str) -> Any:
    if url.startswith("sqlite"):
        engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:", 1), pool_size=10)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine
    return create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:", 1), pool_size=10)


def _prepare_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


engine = _engine(os.environ["CONVENTIONAL_DATABASE"])
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def open_session() -> AsyncIterator[AsyncSession]:
    """One for each request."""
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(open_session)]


def make_token(user: User) -> str:
    """A token for a day."""
    return jwt.encode(
        {"sub": str(user.id), "exp": datetime.now(UTC) + timedelta(days=1)}, KEY, algorithm="HS256"
    )


async def find_reader(session: Session, authorization: Annotated[str | None, Header()] = None) -> User | None:
    """Who asks, or None without a token."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    try:
        claims = jwt.decode(token, KEY, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise Problem(401, "token", "invalid") from None
    user = await session.get(User, int(claims["sub"])) if scheme == "Token" else None
    if user is None:
        raise Problem(401, "token", "invalid")
    return user


Reader = Annotated[User | None, Depends(find_reader)]


async def require_user(reader: Reader) -> User:
    """Who asks, for what needs a token."""
    if reader is None:
        raise Problem(401, "token", "is missing")
    return reader


CurrentUser = Annotated[User, Depends(require_user)]

"""SQLAlchemy's AsyncSession on a transaction that is already open.

The block, not the session, begins and ends the transaction, so the session's own commit and
rollback are refused. Savepoints (`session.begin_nested()`) work as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import StaticPool

from outgrow.errors import Misuse


class BlockSession(AsyncSession):
    """A session whose transaction belongs to the block around it."""

    async def commit(self) -> NoReturn:
        raise Misuse(
            "tx.session.commit(): the block around it commits",
            hint="leave the `async with og.db.write()` block, or call `await tx.session.flush()`",
        )

    async def rollback(self) -> NoReturn:
        raise Misuse(
            "tx.session.rollback(): the block around it rolls back",
            hint="raise an exception, or use `async with tx.session.begin_nested():`",
        )


def engine_on(dialect: Dialect, connect: Callable[[], Any]) -> Engine:
    """An engine whose one connection is what `connect` returns; closing it closes nothing below."""
    pool = StaticPool(connect, dialect=dialect)
    pool._is_asyncio = True
    return Engine(pool, dialect, URL.create(dialect.name))


def session_on(engine: Engine) -> BlockSession:
    """A session on an open block's engine."""
    return BlockSession(AsyncEngine(engine), expire_on_commit=False)

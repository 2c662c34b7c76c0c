"""SQLAlchemy's AsyncSession on a transaction that is already open.

The block, not the session, begins and ends the transaction, so the session's own commit and
rollback are refused. Savepoints (`session.begin_nested()`) work as usual.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, NoReturn

from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import LRUCache

from outgrow.errors import Misuse

COMPILED_MAX = 500
"""As SQLAlchemy's own engines."""


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


class BlockEngine(Engine):
    """An engine whose one connection is a block's. Closing it closes nothing below.

    It lives as long as that connection, since what SQLAlchemy compiles belongs to its engine and costs most
    of a short block. `ends` is who wants to know when its transaction is to end, and whether well.
    """

    ends: Callable[[bool], None] | None = None

    def __init__(self, dialect: Dialect, connect: Callable[[], Any], cache: MutableMapping[Any, Any]) -> None:
        pool = StaticPool(connect, dialect=dialect)
        pool._is_asyncio = True
        super().__init__(pool, dialect, URL.create(dialect.name))
        self._compiled_cache = cache
        event.listen(self, "commit", lambda connection: self._end(True))
        event.listen(self, "rollback", lambda connection: self._end(False))

    def _end(self, well: bool) -> None:
        ends, self.ends = self.ends, None
        if ends is not None:
            ends(well)


def compiled_cache() -> MutableMapping[Any, Any]:
    """For all engines of one node: what one of them has compiled, the others know."""
    return LRUCache(COMPILED_MAX)


def session_on(engine: Engine) -> BlockSession:
    """A session on an open block's engine."""
    return BlockSession(AsyncEngine(engine), expire_on_commit=False)

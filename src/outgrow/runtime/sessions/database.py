"""Sessions in the application's own database, SQLite or PostgreSQL: nothing more to run.

Each call is one short block of its own on the primary: whatever the application's transaction
does, and whatever its bookmark says, has nothing to do with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from sqlalchemy import Table, bindparam, delete, insert, select, update

from outgrow.errors import DatabaseError, Misuse, SessionsUnavailable, UniqueViolation
from outgrow.runtime import scope as request
from outgrow.runtime.sessions.store import AWAY, Record

WITHIN_S = 5.0
SWEPT = 2
"""Expired sessions that each new one takes away: so they never pile up, and nobody has to look for them."""

LISTED = 500
"""Keys that one look goes through."""


class Database(Protocol):
    """og.db, as far as it is needed here."""

    def read(self, *, level: Any = None) -> AbstractAsyncContextManager[Any]: ...
    def write(self) -> AbstractAsyncContextManager[Any]: ...


class DatabaseStore:
    """The table outgrow_session."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        columns = table.c
        this = columns.id == bindparam("key")
        live = (this, columns.moved == "")
        expired = (
            select(columns.id)
            .where(columns.expires_at < bindparam("now"))
            .order_by(columns.expires_at)
            .limit(SWEPT)
            .with_for_update(skip_locked=True)
        )
        self._load = select(
            columns.version, columns.created_at, columns.expires_at, columns.data, columns.moved
        ).where(this)
        self._add = insert(table)
        changed: dict[str, Any] = {
            "version": bindparam("new_version"),
            "expires_at": bindparam("until"),
            "data": bindparam("new_data"),
            "moved": bindparam("new_moved"),
        }
        self._replace = update(table).where(*live, columns.version == bindparam("seen")).values(**changed)
        self._put = update(table).where(this, columns.version < bindparam("new_version")).values(**changed)
        self._freeze = update(table).where(*live).values(version=columns.version + 1, moved=AWAY)
        self._discard = delete(table).where(this, columns.moved != "", columns.version == bindparam("seen"))
        self._list = (
            select(columns.id).where(columns.id > bindparam("after")).order_by(columns.id).limit(LISTED)
        )
        self._touch = update(table).where(*live).values(expires_at=bindparam("until"))
        self._remove = delete(table).where(this)
        self._sweep = delete(table).where(columns.id.in_(expired))

    async def open(self) -> None:
        """The database is opened for itself."""

    async def close(self) -> None:
        """And closed."""

    async def load(self, key: str) -> Record | None:
        async with _apart(), self._database.read(level="strong") as tx:
            row = await tx.one(self._load, key=key)
        return None if row is None else Record(*row)

    async def add(self, key: str, record: Record, kept_ms: int) -> None:
        async with _apart(), self._database.write() as tx:
            await tx.execute(self._sweep, now=int(time.time() * 1000))
            await tx.execute(self._add, **_row(key, record))

    async def replace(self, key: str, version: int, record: Record, kept_ms: int) -> bool:
        return await self._change(self._replace, key=key, seen=version, **_changed(record)) > 0

    async def touch(self, key: str, expires: int, kept_ms: int) -> None:
        await self._change(self._touch, key=key, until=expires)

    async def remove(self, key: str) -> None:
        await self._change(self._remove, key=key)

    async def check(self) -> str:
        return "in the database"

    async def freeze(self, key: str) -> None:
        await self._change(self._freeze, key=key)

    async def put(self, key: str, record: Record, kept_ms: int) -> None:
        while await self._change(self._put, key=key, **_changed(record)) == 0:
            try:
                await self._change(self._add, **_row(key, record))
            except UniqueViolation:
                found = await self.load(key)  # put meanwhile, or of a higher version all along
                if found is not None and found.version < record.version:
                    continue
            return

    async def discard(self, key: str, version: int) -> None:
        await self._change(self._discard, key=key, seen=version)

    async def keys(self) -> AsyncIterator[str]:
        after = ""
        while True:
            async with _apart(), self._database.read(level="strong") as tx:
                rows = await tx.all(self._list, after=after)
            for row in rows:
                yield row[0]
            if len(rows) < LISTED:
                return
            after = rows[-1][0]

    async def _change(self, statement: Any, **parameters: Any) -> int:
        async with _apart(), self._database.write() as tx:
            count: int = await tx.execute(statement, **parameters)
        return count


def _row(key: str, record: Record) -> dict[str, Any]:
    return {
        "id": key,
        "version": record.version,
        "created_at": record.created,
        "expires_at": record.expires,
        "data": record.data,
        "moved": record.moved,
    }


def _changed(record: Record) -> dict[str, Any]:
    return {
        "new_version": record.version,
        "until": record.expires,
        "new_data": record.data,
        "new_moved": record.moved,
    }


@asynccontextmanager
async def _apart() -> AsyncIterator[None]:
    """Away from the request that runs, in its own time. Raises SessionsUnavailable."""
    if request.unit_of_work.get() is not None:
        # Its connection is taken, and SQLite has one writer: this block would wait for that one.
        raise Misuse(
            "a session cannot be kept inside a write block",
            hint="leave the `async with og.db.write()` block before the answer begins",
        )
    token = request.current.set(None)
    try:
        async with asyncio.timeout(WITHIN_S):
            yield
    except TimeoutError as error:
        raise SessionsUnavailable(f"the database did not answer within {WITHIN_S:g} s") from error
    except DatabaseError as error:
        if not error.retryable:
            raise
        raise SessionsUnavailable(error.message) from error
    finally:
        request.current.reset(token)

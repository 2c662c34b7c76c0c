"""A sessionmaker for code that is written for SQLAlchemy's AsyncSession alone: og.db.sessionmaker().

    select ─► read block: a node that is fresh enough ─┐
    flush, INSERT, UPDATE, DELETE, FOR UPDATE, text() ─┴─► from then on a write block on the primary, until
                                                           commit() or rollback()

Nothing is parsed: SQLAlchemy says what it is about to do when it asks for a connection (get_bind). A text may
be anything, so it counts as a write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sqlalchemy import Select
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import CompoundSelect
from sqlalchemy.util import await_only

from outgrow.runtime.database.unit import Read, Unit
from outgrow.runtime.database.write import Write


class Blocks(Protocol):
    """Where blocks come from (Database)."""

    def read(self, *, level: str | None = None) -> Read: ...
    def write(self) -> Write: ...


class RoutedSession(AsyncSession):
    """An AsyncSession whose reads go where `level` lets them, until it writes."""

    def __init__(self, *, blocks: Blocks, level: str | None = None, **options: Any) -> None:
        super().__init__(sync_session_class=_Session, blocks=blocks, level=level, **options)


class _Session(Session):
    """The synchronous session inside, which SQLAlchemy runs in a greenlet."""

    def __init__(self, *, blocks: Blocks, level: str | None, **options: Any) -> None:
        super().__init__(**options)
        self._blocks = blocks
        self._level = level
        self._reading: Engine | None = None
        self._writing: Engine | None = None

    def get_bind(self, mapper: Any = None, *, clause: Any = None, **options: Any) -> Engine:
        """Called by SQLAlchemy before each statement."""
        if self._writing is None and not self._flushing and _only_reads(clause):
            if self._reading is None:
                block = self._blocks.read(level=self._level)
                self._reading = self._engine(block, self._has_read)
            return self._reading
        if self._writing is None:
            self._writing = self._engine(self._blocks.write(), self._has_written)
        return self._writing

    def _has_read(self) -> None:
        self._reading = None

    def _has_written(self) -> None:
        self._writing = None

    def _engine(self, block: Unit, ended: Callable[[], None]) -> Engine:
        """One whose only transaction is the block: it ends as that ends, and with its errors."""
        await_only(block.__aenter__())  # type: ignore[attr-defined]
        engine = block.engine()
        leave: Callable[..., Awaitable[None]] = block.__aexit__  # type: ignore[attr-defined]

        def end(well: bool) -> None:
            ended()
            error = None if well else _RolledBack()
            await_only(leave(error and _RolledBack, error, None))

        engine.ends = end
        return engine


class _RolledBack(Exception):
    """Told to a block that is to be rolled back."""


def _only_reads(clause: Any) -> bool:
    if isinstance(clause, Select):
        return clause._for_update_arg is None
    return isinstance(clause, CompoundSelect)

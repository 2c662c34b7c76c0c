"""The copy itself, whichever way it goes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

import msgspec

from outgrow.errors import VerificationFailed
from outgrow.growth.data.columns import Table, plain
from outgrow.growth.data.sqlite import Key, Row

PAGE = 1_000
ROUNDS_MAX = 50
SMALL = 200
"""So few changed rows are left to the moment in which writes are held."""


class Snapshot(Protocol):
    """One moment of a source."""

    mark: int

    async def count(self, table: Table) -> int: ...
    async def page(
        self, table: Table, after: Key | None, limit: int, upto: Key | None = None
    ) -> list[Row]: ...
    async def changed(self, tables: Sequence[Table], since: int) -> dict[str, set[Key]]: ...
    async def rows(self, table: Table, keys: Iterable[Key]) -> list[Row]: ...
    async def fence(self) -> None: ...
    async def commit(self) -> None: ...


class Store(Protocol):
    """A database that is copied from, or to."""

    async def capture(self, tables: Sequence[Table]) -> None: ...
    async def release(self) -> None: ...
    async def unfence(self) -> None: ...
    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]: ...
    def locked(self) -> AbstractAsyncContextManager[Snapshot]: ...
    def kept_open(self) -> AbstractAsyncContextManager[None]: ...
    async def clear(self, tables: Sequence[Table]) -> None: ...
    async def load(self, table: Table, pages: AsyncIterator[list[Row]]) -> None: ...
    async def replace(
        self, gone: Sequence[tuple[Table, list[Key]]], come: AsyncIterator[tuple[Table, list[Row]]]
    ) -> dict[str, int]: ...
    async def go_on(self, tables: Sequence[Table]) -> None: ...
    async def finish(self) -> None: ...


Says = Callable[[str], None]
Rest = Callable[[float], Awaitable[None]]
"""Called after so many seconds of work, for those who work on the same machine."""


async def without_rest(worked_s: float) -> None:
    """Nobody else is there, or all of them wait for this work."""


async def copy(
    source: Store, target: Store, tables: Sequence[Table], says: Says, rest: Rest = without_rest
) -> int:
    """Every row of one moment; what the target held goes. Returns the mark of that moment."""
    await target.clear(tables)
    async with source.snapshot() as snapshot:
        total = 0
        for table in tables:
            whole = await snapshot.count(table)
            await target.load(table, pages(snapshot, table, whole, says, rest))
            total += whole
        says(f"{total:,} rows copied")
        return snapshot.mark


async def pages(
    snapshot: Snapshot, table: Table, whole: int, says: Says, rest: Rest
) -> AsyncIterator[list[Row]]:
    """A table in the order of its key."""
    after: Key | None = None
    done = 0
    work = _Work(rest)
    while rows := await snapshot.page(table, after, PAGE):
        yield rows
        after = table.key_of(rows[-1])
        done += len(rows)
        says(f"{table.name}: {done:,} of {whole:,} rows")
        await work.rest()


class _Work:
    """Work in parts, each of which is followed by a rest."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._began = time.monotonic()

    async def rest(self) -> None:
        """A part is done."""
        await self._rest(time.monotonic() - self._began)
        self._began = time.monotonic()

    async def rest_after(self, keys: Sequence[Key]) -> None:
        """A part with these keys is done. After a small one none: what is left must become less and less."""
        if len(keys) >= PAGE:
            await self.rest()


class Changes(NamedTuple):
    """What a catching up has done: how many rows, and by how many each table has grown."""

    rows: int
    grown: dict[str, int]


async def catch_up(
    snapshot: Snapshot, target: Store, tables: Sequence[Table], since: int, rest: Rest = without_rest
) -> Changes:
    """Copy what has changed up to this snapshot, and compare it. Raises VerificationFailed.

    All of it is one transaction of the target, so that rows may have swapped what must be unique.
    """
    changed = await snapshot.changed(tables, since)
    parts = [
        (table, part) for table in tables if table.name in changed for part in _parts(changed[table.name])
    ]
    if not parts:
        return Changes(0, {})
    work = _Work(rest)
    grown = await target.replace(parts, _rows(snapshot, parts, work))
    async with target.snapshot() as copied:
        for table, keys in parts:
            await _require_same_rows(snapshot, copied, table, keys)
            await work.rest_after(keys)
    await target.go_on([table for table in tables if table.name in changed])
    return Changes(sum(len(keys) for _, keys in parts), grown)


def _parts(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """In the order of the text that says them: the same every time."""
    ordered = sorted(keys, key=repr)
    for start in range(0, len(ordered), PAGE):
        yield ordered[start : start + PAGE]


async def _rows(
    snapshot: Snapshot, parts: Sequence[tuple[Table, list[Key]]], work: _Work
) -> AsyncIterator[tuple[Table, list[Row]]]:
    for table, keys in parts:
        yield table, await snapshot.rows(table, keys)
        await work.rest_after(keys)


async def _require_same_rows(snapshot: Snapshot, copied: Snapshot, table: Table, keys: list[Key]) -> None:
    wanted, held = [
        sorted(await each.rows(table, keys), key=lambda row: repr(table.key_of(row)))
        for each in (snapshot, copied)
    ]
    if checksum(table, wanted) != checksum(table, held):
        raise VerificationFailed(f"table {table.name}: {_first_difference(table, wanted, held)}")


async def verify(
    snapshot: Snapshot, target: Snapshot, tables: Sequence[Table], says: Says, rest: Rest = without_rest
) -> str:
    """Compare counts, and checksums of every range of keys. Returns a digest of everything.

    Raises VerificationFailed, naming the first row that differs.
    """
    whole = hashlib.blake2b(digest_size=16)
    total = 0
    for table in tables:
        counts = await snapshot.count(table), await target.count(table)
        if counts[0] != counts[1]:
            raise VerificationFailed(f"table {table.name}: {counts[0]:,} rows, and {counts[1]:,} in the copy")
        after: Key | None = None
        work = _Work(rest)
        while rows := await snapshot.page(table, after, PAGE):
            last = table.key_of(rows[-1])
            copied = await target.page(table, after, PAGE + 1, upto=last)
            digest = checksum(table, rows)
            if digest != checksum(table, copied):
                raise VerificationFailed(f"table {table.name}: {_first_difference(table, rows, copied)}")
            whole.update(digest)
            total += len(rows)
            says(f"{total:,} rows compared, {table.name}")
            after = last
            await work.rest()
    says(f"{total:,} rows are the same, checksum {whole.hexdigest()}")
    return whole.hexdigest()


def checksum(table: Table, rows: Sequence[Row]) -> bytes:
    """Of rows, whichever database they come from."""
    return hashlib.blake2b(msgspec.msgpack.encode(plain(table, rows)), digest_size=16).digest()


def _first_difference(table: Table, rows: Sequence[Row], copied: Sequence[Row]) -> str:
    held = {table.key_of(row): row for row in copied}
    for row in rows:
        key = table.key_of(row)
        if key not in held:
            return f"the row with the key {_shown(key)} is missing in the copy"
        (mine,), (other,) = plain(table, [row]), plain(table, [held[key]])
        for column, value, copy in zip(table.columns, mine, other, strict=True):
            if msgspec.msgpack.encode(value) != msgspec.msgpack.encode(copy):
                return f"the row with the key {_shown(key)} differs in {column.name}"
    return "the copy holds rows that are not there"


def _shown(key: tuple[Any, ...]) -> str:
    return ", ".join(map(str, key))

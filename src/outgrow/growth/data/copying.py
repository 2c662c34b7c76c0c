"""The copy itself, whichever way it goes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

import msgspec

from outgrow.errors import VerificationFailed
from outgrow.growth.data.columns import Table, plain
from outgrow.growth.data.sqlite import Key, Row

PAGE = 5_000
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
    async def release(self, tables: Sequence[Table]) -> None: ...
    async def unfence(self) -> None: ...
    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]: ...
    def locked(self) -> AbstractAsyncContextManager[Snapshot]: ...
    async def clear(self, tables: Sequence[Table]) -> None: ...
    async def load(self, table: Table, rows: Sequence[Row]) -> None: ...
    async def replace(self, changes: Sequence[tuple[Table, Iterable[Key], Sequence[Row]]]) -> None: ...
    async def finish(self, tables: Sequence[Table]) -> None: ...


Says = Callable[[str], None]


async def copy(source: Store, target: Store, tables: Sequence[Table], says: Says) -> int:
    """Every row of one moment; what the target held goes. Returns the mark of that moment."""
    await target.clear(tables)
    async with source.snapshot() as snapshot:
        total = 0
        for table in tables:
            whole = await snapshot.count(table)
            done = 0
            async for rows in pages(snapshot, table):
                await target.load(table, rows)
                done += len(rows)
                says(f"{table.name}: {done:,} of {whole:,} rows")
            total += done
        says(f"{total:,} rows copied")
        return snapshot.mark


async def pages(snapshot: Snapshot, table: Table) -> AsyncIterator[list[Row]]:
    """A table in the order of its key."""
    after: Key | None = None
    while rows := await snapshot.page(table, after, PAGE):
        yield rows
        after = table.key_of(rows[-1])


async def catch_up(snapshot: Snapshot, target: Store, tables: Sequence[Table], since: int) -> int:
    """Copy what has changed up to this snapshot. Returns how many rows that were."""
    changed = await snapshot.changed(tables, since)
    by_name = {table.name: table for table in tables}
    changes = [
        (by_name[name], keys, await snapshot.rows(by_name[name], keys)) for name, keys in changed.items()
    ]
    await target.replace(changes)
    return sum(len(keys) for keys in changed.values())


class Difference(NamedTuple):
    """Where two copies are not the same."""

    table: str
    text: str


async def verify(snapshot: Snapshot, target: Snapshot, tables: Sequence[Table], says: Says) -> str:
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
        while rows := await snapshot.page(table, after, PAGE):
            last = table.key_of(rows[-1])
            copied = await target.page(table, after, PAGE + 1, upto=last)
            digest = checksum(rows)
            if digest != checksum(copied):
                raise VerificationFailed(f"table {table.name}: {_first_difference(table, rows, copied)}")
            whole.update(digest)
            total += len(rows)
            says(f"{total:,} rows compared, {table.name}")
            after = last
    says(f"{total:,} rows are the same, checksum {whole.hexdigest()}")
    return whole.hexdigest()


def checksum(rows: Sequence[Row]) -> bytes:
    """Of rows, whichever database they come from."""
    values = [[plain(value) for value in row] for row in rows]
    return hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=16).digest()


def _first_difference(table: Table, rows: Sequence[Row], copied: Sequence[Row]) -> str:
    held = {table.key_of(row): row for row in copied}
    for row in rows:
        key = table.key_of(row)
        if key not in held:
            return f"the row with the key {_shown(key)} is missing in the copy"
        for column, value, other in zip(table.columns, row, held[key], strict=True):
            if plain(value) != plain(other):
                return f"the row with the key {_shown(key)} differs in {column.name}"
    return "the copy holds rows that are not there"


def _shown(key: tuple[Any, ...]) -> str:
    return ", ".join(map(str, key))

"""A SQLite file as source and as target of a copy."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from outgrow.errors import FleetError
from outgrow.growth.data.columns import Table, from_json, from_sqlite, literal, quoted, to_sqlite

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Beside the event loop, and to its end even when cancelled: nothing may close what it works with."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


Row = tuple[Any, ...]
Key = tuple[Any, ...]

OWN_STATE = frozenset({"alembic_version", "outgrow_position", "outgrow_migrated", "outgrow_changes"})
"""What each database keeps for itself."""

LOCK_WAIT_S = 5.0
HELD_LOCK_WAIT_S = 2.0
"""Less where the application's writes are held meanwhile."""

KEYS_AT_ONCE = 200
_CHANGES = (
    "CREATE TABLE IF NOT EXISTS outgrow_changes (id INTEGER PRIMARY KEY AUTOINCREMENT, tab TEXT, key TEXT)"
)
_CAPTURING = (
    "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'outgrow\\_capture\\_%' ESCAPE '\\'"
)
_FENCE = """
CREATE TRIGGER IF NOT EXISTS outgrow_fence BEFORE UPDATE ON outgrow_position
BEGIN SELECT RAISE(ABORT, 'outgrow: the data of this file has moved to another database'); END
"""


class SqliteStore:
    """The file at `path`. Every call works in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def columns(self) -> dict[str, set[str]]:
        """The tables that belong to the application, Outgrow's queue among them, and their columns."""
        return await in_thread(self._columns)

    async def capture(self, tables: Sequence[Table]) -> None:
        """From now on the key of every row that changes is noted."""
        await self._write([_CHANGES, *(sql for table in tables for sql in _triggers(table))])

    async def release(self) -> None:
        """Note nothing any more, and forget what was noted."""

        def call(connection: sqlite3.Connection) -> None:
            for (name,) in connection.execute(_CAPTURING).fetchall():
                connection.execute(f"DROP TRIGGER {quoted(name)}")
            connection.execute("DROP TABLE IF EXISTS outgrow_changes")

        await self._in_transaction(call)

    async def unfence(self) -> None:
        """Let it be written to again."""
        await self._write(["DROP TRIGGER IF EXISTS outgrow_fence"])

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[SqliteSnapshot]:
        """One moment of the file. Its writer goes on meanwhile."""
        async with self._session("BEGIN", LOCK_WAIT_S) as snapshot:
            yield snapshot

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[SqliteSnapshot]:
        """The same, and nobody writes until it ends. Raises FleetError when the lock cannot be had."""
        async with self._session("BEGIN IMMEDIATE", HELD_LOCK_WAIT_S) as snapshot:
            yield snapshot

    @asynccontextmanager
    async def _session(self, begin: str, wait_s: float) -> AsyncIterator[SqliteSnapshot]:
        connection = await in_thread(lambda: self._open(wait_s))
        try:
            try:
                await in_thread(lambda: connection.execute(begin))
            except sqlite3.OperationalError as error:
                raise FleetError(
                    f"{self.path.name}: {error}", hint="another process writes: try again"
                ) from error
            snapshot = SqliteSnapshot(connection)
            await snapshot.begin()
            yield snapshot
        finally:
            await in_thread(connection.close)  # rolls back what was not committed

    async def clear(self, tables: Sequence[Table]) -> None:
        """Remove every row."""
        await self._write([f"DELETE FROM {table.sql}" for table in tables])

    async def load(self, table: Table, pages: AsyncIterator[list[Row]]) -> None:
        """Add rows, each page in a transaction of its own."""
        async for rows in pages:
            async with self._transaction() as connection:
                await in_thread(_inserting(connection, table, rows))

    async def replace(
        self, gone: Sequence[tuple[Table, list[Key]]], come: AsyncIterator[tuple[Table, list[Row]]]
    ) -> dict[str, int]:
        """In one transaction: rows with these keys go, these rows come. Returns how each table has grown."""
        grown: dict[str, int] = {}
        async with self._transaction() as connection:
            for table, keys in gone:
                count = await in_thread(_deleting(connection, table, keys))
                grown[table.name] = grown.get(table.name, 0) - count
            async for table, rows in come:
                await in_thread(_inserting(connection, table, rows))
                grown[table.name] += len(rows)
        return grown

    @asynccontextmanager
    async def kept_open(self) -> AsyncIterator[None]:
        """Opening a file takes no time."""
        yield

    async def go_on(self, tables: Sequence[Table]) -> None:
        """SQLite itself knows the largest key."""

    async def finish(self) -> None:
        """Everything has been copied: the file is whole without its write-ahead log."""

        def call() -> None:
            connection = self._open()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

        await in_thread(call)

    def _columns(self) -> dict[str, set[str]]:
        connection = self._open()
        try:
            found = connection.execute(
                "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c "
                "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            ).fetchall()
        finally:
            connection.close()
        columns: dict[str, set[str]] = {}
        for table, column in found:
            if table not in OWN_STATE:
                columns.setdefault(table, set()).add(column)
        return columns

    def _open(self, wait_s: float = LOCK_WAIT_S) -> sqlite3.Connection:
        """The file, which must be there. Raises FleetError."""
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(self.path))}?mode=rw",
                uri=True,
                timeout=wait_s,
                isolation_level=None,
                check_same_thread=False,
            )
            # Rows come in any order; they are verified as a whole.
            connection.execute("PRAGMA foreign_keys = OFF")
        except sqlite3.Error as error:
            raise FleetError(f"the file {self.path} cannot be opened: {error}") from error
        return connection

    async def _write(self, statements: Iterable[str]) -> None:
        await self._in_transaction(lambda connection: [connection.execute(sql) for sql in statements])

    async def _in_transaction(self, call: Callable[[sqlite3.Connection], object]) -> None:
        async with self._transaction() as connection:
            await in_thread(lambda: call(connection))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[sqlite3.Connection]:
        connection = await in_thread(self._open)
        try:
            await in_thread(lambda: connection.execute("BEGIN IMMEDIATE"))
            yield connection
            await in_thread(lambda: connection.execute("COMMIT"))
        except sqlite3.Error as error:
            raise FleetError(f"{self.path.name}: {error}") from error
        finally:
            await in_thread(connection.close)


class SqliteSnapshot:
    """An open transaction on the file: what it reads does not change."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.mark = 0

    async def begin(self) -> None:
        """Fix the moment, and the last change that it holds."""
        self.mark = await self._run(self._last_change)

    async def count(self, table: Table) -> int:
        """How many rows."""
        return await self._run(
            lambda: int(self._connection.execute(f"SELECT count(*) FROM {table.sql}").fetchone()[0])
        )

    async def page(self, table: Table, after: Key | None, limit: int, upto: Key | None = None) -> list[Row]:
        """Rows in the order of their key, after one and up to another."""
        return await self._run(lambda: self._page(table, after, limit, upto))

    async def changed(self, tables: Sequence[Table], since: int) -> dict[str, set[Key]]:
        """The keys of the rows that have changed after that mark, up to this snapshot's."""
        return await self._run(lambda: self._changed(tables, since))

    async def rows(self, table: Table, keys: Iterable[Key]) -> list[Row]:
        """The rows with these keys that there are."""
        return await self._run(lambda: self._rows(table, list(keys)))

    async def fence(self) -> None:
        """Nobody writes to it any more through Outgrow, once `commit` has returned. Needs the lock."""
        await self._run(lambda: self._connection.execute(_FENCE))

    async def commit(self) -> None:
        """Keep what was written inside it."""
        await self._run(lambda: self._connection.execute("COMMIT"))

    async def _run(self, call: Callable[[], T]) -> T:
        return await in_thread(call)

    def _last_change(self) -> int:
        try:
            row = self._connection.execute("SELECT max(id) FROM outgrow_changes").fetchone()
        except sqlite3.OperationalError:  # nothing is noted
            self._connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            return 0
        return int(row[0] or 0)

    def _page(self, table: Table, after: Key | None, limit: int, upto: Key | None) -> list[Row]:
        columns = table.columns_sql
        key = ", ".join(f"{quoted(name)} COLLATE BINARY" for name in table.key)
        marks = ", ".join("?" * len(table.key))
        where, values = [], []
        for sign, bound in ((">", after), ("<=", upto)):
            if bound is not None:
                where.append(f"({key}) {sign} ({marks})")
                values += _stored(table, bound)
        sql = f"SELECT {columns} FROM {table.sql}"
        sql += f" WHERE {' AND '.join(where)}" if where else ""
        return self._converted(
            table, self._connection.execute(f"{sql} ORDER BY {key} LIMIT ?", [*values, limit])
        )

    def _changed(self, tables: Sequence[Table], since: int) -> dict[str, set[Key]]:
        by_name = {table.name: table for table in tables}
        found: dict[str, set[Key]] = {}
        rows = self._connection.execute(
            "SELECT tab, key FROM outgrow_changes WHERE id > ? AND id <= ?", (since, self.mark)
        )
        for name, text in rows:
            table = by_name[name]
            parts = msgspec.json.decode(text)
            key = tuple(
                from_sqlite(column.kind)(part) if isinstance(part, str) else from_json(column.kind)(part)
                for column, part in zip(table.key_columns, parts, strict=True)
            )
            found.setdefault(name, set()).add(key)
        return found

    def _rows(self, table: Table, keys: list[Key]) -> list[Row]:
        columns = table.columns_sql
        key = ", ".join(quoted(name) for name in table.key)
        marks = f"({', '.join('?' * len(table.key))})"
        found: list[Row] = []
        for start in range(0, len(keys), KEYS_AT_ONCE):
            part = keys[start : start + KEYS_AT_ONCE]
            wanted = ", ".join([marks] * len(part))
            sql = f"SELECT {columns} FROM {table.sql} WHERE ({key}) IN (VALUES {wanted})"
            values = [value for each in part for value in _stored(table, each)]
            found += self._converted(table, self._connection.execute(sql, values))
        return found

    def _converted(self, table: Table, rows: Iterable[Row]) -> list[Row]:
        steps = [from_sqlite(column.kind) for column in table.columns]
        converted = []
        for row in rows:
            try:
                converted.append(tuple(step(value) for step, value in zip(steps, row, strict=True)))
            except (ValueError, TypeError, ArithmeticError) as error:
                raise FleetError(
                    f"table {table.name}: a row cannot be moved: {error}",
                    hint="correct the row, then try again",
                ) from error
        return converted


def _stored(table: Table, key: Key) -> list[Any]:
    return [to_sqlite(column.kind)(part) for column, part in zip(table.key_columns, key, strict=True)]


def _deleting(connection: sqlite3.Connection, table: Table, keys: list[Key]) -> Callable[[], int]:
    where = " AND ".join(f"{quoted(name)} IS ?" for name in table.key)
    values = [_stored(table, key) for key in keys]
    return lambda: connection.executemany(f"DELETE FROM {table.sql} WHERE {where}", values).rowcount


def _inserting(connection: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> Callable[[], object]:
    steps = [to_sqlite(column.kind) for column in table.columns]
    marks = ", ".join("?" * len(steps))
    sql = f"INSERT INTO {table.sql} ({table.columns_sql}) VALUES ({marks})"
    values = (
        [None if value is None else step(value) for step, value in zip(steps, row, strict=True)]
        for row in rows
    )
    return lambda: connection.executemany(sql, values)


def _triggers(table: Table) -> Iterable[str]:
    sides_of = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
    for event, sides in sides_of.items():
        name = f"outgrow_capture_{table.name}_{event.lower()}"
        notes = " ".join(_note(table, side) for side in sides)
        yield f"CREATE TRIGGER IF NOT EXISTS {quoted(name)} AFTER {event} ON {table.sql} BEGIN {notes} END"


def _note(table: Table, side: str) -> str:
    key = ", ".join(f"{side}.{quoted(name)}" for name in table.key)
    return f"INSERT INTO outgrow_changes (tab, key) VALUES ({literal(table.name)}, json_array({key}));"

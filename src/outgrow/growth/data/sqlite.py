"""A SQLite file as source and as target of a copy."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from outgrow.errors import FleetError
from outgrow.growth.data.columns import Table, from_json, from_sqlite, literal, quoted, to_sqlite

T = TypeVar("T")
Row = tuple[Any, ...]
Key = tuple[Any, ...]

OWN_STATE = frozenset({"alembic_version", "outgrow_position", "outgrow_migrated", "outgrow_changes"})
"""What each database keeps for itself."""

LOCK_WAIT_S = 5.0
KEYS_AT_ONCE = 200
_CHANGES = (
    "CREATE TABLE IF NOT EXISTS outgrow_changes (id INTEGER PRIMARY KEY AUTOINCREMENT, tab TEXT, key TEXT)"
)
_FENCE = """
CREATE TRIGGER IF NOT EXISTS outgrow_fence BEFORE UPDATE ON outgrow_position
BEGIN SELECT RAISE(ABORT, 'outgrow: the data of this file has moved to another database'); END
"""


class SqliteStore:
    """The file at `path`. Every call works in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def names(self) -> list[str]:
        """The tables that belong to the application, Outgrow's queue among them."""
        return await asyncio.to_thread(self._names)

    async def capture(self, tables: Sequence[Table]) -> None:
        """From now on the key of every row that changes is noted."""
        await asyncio.to_thread(
            self._write, [_CHANGES, *(sql for table in tables for sql in _triggers(table))]
        )

    async def release(self, tables: Sequence[Table]) -> None:
        """Note nothing any more, and forget what was noted."""
        await asyncio.to_thread(
            self._write,
            [
                *(
                    f"DROP TRIGGER IF EXISTS {quoted(name)}"
                    for table in tables
                    for name in _trigger_names(table)
                ),
                "DROP TABLE IF EXISTS outgrow_changes",
            ],
        )

    async def unfence(self) -> None:
        """Let it be written to again."""
        await asyncio.to_thread(self._write, ["DROP TRIGGER IF EXISTS outgrow_fence"])

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[SqliteSnapshot]:
        """One moment of the file. Its writer goes on meanwhile."""
        async with self._session("BEGIN") as snapshot:
            yield snapshot

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[SqliteSnapshot]:
        """The same, and nobody writes until it ends. Raises FleetError when the lock cannot be had."""
        async with self._session("BEGIN IMMEDIATE") as snapshot:
            yield snapshot

    @asynccontextmanager
    async def _session(self, begin: str) -> AsyncIterator[SqliteSnapshot]:
        connection = await asyncio.to_thread(self._open)
        try:
            try:
                await asyncio.to_thread(connection.execute, begin)
            except sqlite3.OperationalError as error:
                raise FleetError(
                    f"{self.path.name}: {error}", hint="another process writes: try again"
                ) from error
            snapshot = SqliteSnapshot(connection)
            await snapshot.begin()
            yield snapshot
        finally:
            await asyncio.to_thread(connection.close)  # rolls back what was not committed

    async def clear(self, tables: Sequence[Table]) -> None:
        """Remove every row."""
        await asyncio.to_thread(self._write, [f"DELETE FROM {table.sql}" for table in tables])

    async def load(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows."""
        await asyncio.to_thread(self._replace, [(table, (), rows)])

    async def replace(self, changes: Sequence[tuple[Table, Iterable[Key], Sequence[Row]]]) -> None:
        """In one transaction: rows with these keys go, these rows come."""
        await asyncio.to_thread(self._replace, changes)

    async def finish(self, tables: Sequence[Table]) -> None:
        """Everything has been copied: the file is whole without its write-ahead log."""

        def call() -> None:
            connection = self._open()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

        await asyncio.to_thread(call)

    def _names(self) -> list[str]:
        connection = self._open()
        try:
            found = connection.execute(
                "SELECT name FROM sqlite_schema "
                "WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
            ).fetchall()
        finally:
            connection.close()
        return [name for (name,) in found if name not in OWN_STATE]

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute(
            "PRAGMA foreign_keys = OFF"
        )  # rows come in any order; they are verified as a whole
        return connection

    def _write(self, statements: Iterable[str]) -> None:
        self._in_transaction(lambda connection: [connection.execute(sql) for sql in statements])

    def _replace(self, changes: Sequence[tuple[Table, Iterable[Key], Sequence[Row]]]) -> None:
        def call(connection: sqlite3.Connection) -> None:
            for table, keys, _ in changes:
                convert = [to_sqlite(column.kind) for column in table.key_columns]
                where = " AND ".join(f"{quoted(name)} IS ?" for name in table.key)
                connection.executemany(
                    f"DELETE FROM {table.sql} WHERE {where}",
                    ([step(part) for step, part in zip(convert, key, strict=True)] for key in keys),
                )
            for table, _, rows in changes:
                columns = [to_sqlite(column.kind) for column in table.columns]
                names = table.columns_sql
                marks = ", ".join("?" * len(columns))
                connection.executemany(
                    f"INSERT INTO {table.sql} ({names}) VALUES ({marks})",
                    ([step(value) for step, value in zip(columns, row, strict=True)] for row in rows),
                )

        self._in_transaction(call)

    def _in_transaction(self, call: Callable[[sqlite3.Connection], object]) -> None:
        connection = self._open()
        try:
            connection.execute("BEGIN IMMEDIATE")
            call(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise FleetError(f"{self.path.name}: {error}") from error
        finally:
            connection.close()


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
        return await asyncio.to_thread(call)

    def _last_change(self) -> int:
        try:
            row = self._connection.execute("SELECT max(id) FROM outgrow_changes").fetchone()
        except sqlite3.OperationalError:  # nothing is noted
            self._connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            return 0
        return int(row[0] or 0)

    def _page(self, table: Table, after: Key | None, limit: int, upto: Key | None) -> list[Row]:
        columns = table.columns_sql
        key = ", ".join(quoted(name) for name in table.key)
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


def _trigger_names(table: Table) -> tuple[str, ...]:
    return tuple(f"outgrow_capture_{table.name}_{event.lower()}" for event in ("INSERT", "UPDATE", "DELETE"))


def _triggers(table: Table) -> Iterable[str]:
    sides_of = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
    for (event, sides), name in zip(sides_of.items(), _trigger_names(table), strict=True):
        notes = " ".join(_note(table, side) for side in sides)
        yield f"CREATE TRIGGER IF NOT EXISTS {quoted(name)} AFTER {event} ON {table.sql} BEGIN {notes} END"


def _note(table: Table, side: str) -> str:
    key = ", ".join(f"{side}.{quoted(name)}" for name in table.key)
    return f"INSERT INTO outgrow_changes (tab, key) VALUES ({literal(table.name)}, json_array({key}));"

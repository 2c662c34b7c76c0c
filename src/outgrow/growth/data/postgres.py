"""A PostgreSQL database as source and as target of a copy. Works as its superuser: foreign keys must wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from outgrow.errors import FleetError
from outgrow.growth.data.columns import Column, Table, from_json, literal, quoted
from outgrow.growth.data.sqlite import OWN_STATE, Key, Row

CONNECT_WITHIN_S = 10.0
_JSON_KINDS = ("json", "jsonb")
_TEXT_KINDS = ("text", "varchar", "bpchar", "name")

_TABLES = """
SELECT c.relname AS name, a.attname AS "column", t.typname AS kind, a.attnum AS number, k.place
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
LEFT JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) ON k.attnum = a.attnum
WHERE c.relkind IN ('r', 'p')
ORDER BY c.relname, a.attnum
"""

_CAPTURE = """
CREATE TABLE IF NOT EXISTS outgrow_changes (id bigserial PRIMARY KEY, tab text NOT NULL, key jsonb NOT NULL);
CREATE OR REPLACE FUNCTION outgrow_capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO outgrow_changes (tab, key)
        SELECT TG_TABLE_NAME, jsonb_agg(to_jsonb(OLD) -> name ORDER BY place)
        FROM unnest(TG_ARGV) WITH ORDINALITY AS argument (name, place);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO outgrow_changes (tab, key)
        SELECT TG_TABLE_NAME, jsonb_agg(to_jsonb(NEW) -> name ORDER BY place)
        FROM unnest(TG_ARGV) WITH ORDINALITY AS argument (name, place);
    END IF;
    RETURN NULL;
END $$;
"""


class PostgresStore:
    """The database at `url`. `application` is the role that writes to it at other times."""

    def __init__(self, url: str, password: str, application: str) -> None:
        self._url = url
        self._password = password
        self._role = quoted(application)

    async def tables(self) -> list[Table]:
        """What it holds. Raises FleetError for a table without a primary key."""
        async with self._connection() as connection:
            rows = await connection.fetch(_TABLES)
        names = list(dict.fromkeys(row["name"] for row in rows))
        return [
            _table(name, [row for row in rows if row["name"] == name])
            for name in names
            if name not in OWN_STATE
        ]

    async def capture(self, tables: Sequence[Table]) -> None:
        """From now on the key of every row that changes is noted."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(_CAPTURE)
            for table in tables:
                arguments = ", ".join(literal(name) for name in table.key)
                await connection.execute(
                    "CREATE OR REPLACE TRIGGER outgrow_capture "
                    f"AFTER INSERT OR UPDATE OR DELETE ON {table.sql} "
                    f"FOR EACH ROW EXECUTE FUNCTION outgrow_capture({arguments})"
                )

    async def release(self, tables: Sequence[Table]) -> None:
        """Note nothing any more, and forget what was noted."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute("DROP FUNCTION IF EXISTS outgrow_capture() CASCADE")
            await connection.execute("DROP TABLE IF EXISTS outgrow_changes")

    async def unfence(self) -> None:
        """Let the application write to it again."""
        async with self._connection() as connection:
            await connection.execute(
                f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {self._role}"
            )

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        """One moment of the database. Its writers go on meanwhile."""
        async with self._connection() as connection:
            transaction = connection.transaction(isolation="repeatable_read")
            await transaction.start()
            snapshot = PostgresSnapshot(connection, transaction, self._role)
            try:
                await snapshot.begin()
                yield snapshot
            finally:
                await snapshot.close()

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[PostgresSnapshot]:
        """The same, and nobody writes until it ends."""
        tables = [table.sql for table in await self.tables()]
        async with self._connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            snapshot = PostgresSnapshot(connection, transaction, self._role)
            try:
                await connection.execute("SET LOCAL lock_timeout = '5s'")
                names = ", ".join(tables)
                await connection.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
                await snapshot.begin()
                yield snapshot
            finally:
                await snapshot.close()

    async def clear(self, tables: Sequence[Table]) -> None:
        """Remove every row."""
        async with self._connection() as connection:
            await connection.execute(f"TRUNCATE {', '.join(table.sql for table in tables)}")

    async def load(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows."""
        async with self._connection() as connection:
            await _load(connection, table, rows)

    async def replace(self, changes: Sequence[tuple[Table, Iterable[Key], Sequence[Row]]]) -> None:
        """In one transaction: rows with these keys go, these rows come."""
        async with self._connection() as connection, connection.transaction():
            for table, keys, _ in changes:
                await connection.execute(
                    f"DELETE FROM {table.sql} USING {_wanted(table)} WHERE {_matched(table)}",
                    *_arrays(table, keys),
                )
            for table, _, rows in changes:
                if rows:
                    await _load(connection, table, rows)

    async def finish(self, tables: Sequence[Table]) -> None:
        """Sequences go on after the largest value; the planner knows how much there is."""
        async with self._connection() as connection:
            for table in tables:
                for column in table.columns:
                    if column.kind in ("int2", "int4", "int8"):
                        await _advance(connection, table, column)
            await connection.execute("ANALYZE")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            connection = await asyncpg.connect(
                self._url,
                password=self._password,
                timeout=CONNECT_WITHIN_S,
                # Rows come in any order; they are verified as a whole. Triggers of the copy do not fire.
                server_settings={"session_replication_role": "replica", "application_name": "outgrow-growth"},
            )
        except (OSError, asyncpg.PostgresError) as error:
            raise FleetError(f"PostgreSQL does not answer: {error}") from error
        try:
            yield connection
        except asyncpg.PostgresError as error:
            raise FleetError(f"PostgreSQL: {error}") from error
        finally:
            await connection.close()


class PostgresSnapshot:
    """An open transaction: what it reads does not change."""

    def __init__(self, connection: Any, transaction: Any, role: str) -> None:
        self._connection = connection
        self._transaction: Any = transaction
        self._role = role
        self.mark = 0

    async def begin(self) -> None:
        """Fix the moment, and the last change that it holds."""
        known = await self._connection.fetchval("SELECT to_regclass('public.outgrow_changes')")
        if known is not None:
            self.mark = await self._connection.fetchval("SELECT coalesce(max(id), 0) FROM outgrow_changes")

    async def close(self) -> None:
        """Roll back what was not committed."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and not self._connection.is_closed():
            await transaction.rollback()

    async def count(self, table: Table) -> int:
        """How many rows."""
        return int(await self._connection.fetchval(f"SELECT count(*) FROM {table.sql}"))

    async def page(self, table: Table, after: Key | None, limit: int, upto: Key | None = None) -> list[Row]:
        """Rows in the order of their key, after one and up to another."""
        columns = table.columns_sql
        key = ", ".join(_ordered(column) for column in table.key_columns)
        where: list[str] = []
        values: list[Any] = []
        for sign, bound in ((">", after), ("<=", upto)):
            if bound is not None:
                marks = ", ".join(f"${len(values) + number}" for number in range(1, len(bound) + 1))
                where.append(f"({key}) {sign} ({marks})")
                values += bound
        sql = f"SELECT {columns} FROM {table.sql}"
        sql += f" WHERE {' AND '.join(where)}" if where else ""
        rows = await self._connection.fetch(f"{sql} ORDER BY {key} LIMIT {limit}", *values)
        return [_values(table, row) for row in rows]

    async def changed(self, tables: Sequence[Table], since: int) -> dict[str, set[Key]]:
        """The keys of the rows whose changes this snapshot sees.

        All that were ever noted: a transaction may commit after others that took later numbers, so
        a number says nothing about what has been seen. A row copied twice is the same row.
        """
        by_name = {table.name: table for table in tables}
        found: dict[str, set[Key]] = {}
        for name, text in await self._connection.fetch("SELECT DISTINCT tab, key::text FROM outgrow_changes"):
            table = by_name[name]
            parts = msgspec.json.decode(text)
            key = tuple(
                from_json(column.kind)(part) for column, part in zip(table.key_columns, parts, strict=True)
            )
            found.setdefault(name, set()).add(key)
        return found

    async def rows(self, table: Table, keys: Iterable[Key]) -> list[Row]:
        """The rows with these keys that there are."""
        columns = ", ".join(f"{table.sql}.{quoted(name)}" for name in table.names)
        rows = await self._connection.fetch(
            f"SELECT {columns} FROM {table.sql}, {_wanted(table)} WHERE {_matched(table)}",
            *_arrays(table, keys),
        )
        return [_values(table, row) for row in rows]

    async def fence(self) -> None:
        """The application may not write to it any more, once `commit` has returned."""
        await self._connection.execute(
            f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public FROM {self._role}"
        )

    async def commit(self) -> None:
        """Keep what was written inside it."""
        transaction, self._transaction = self._transaction, None
        await transaction.commit()


def _table(name: str, rows: list[Any]) -> Table:
    key = [
        row["column"] for row in sorted((row for row in rows if row["place"]), key=lambda row: row["place"])
    ]
    if not key:
        raise FleetError(
            f"table {name} has no primary key, so its rows cannot be told apart",
            hint="give it one in a migration",
        )
    return Table(name, tuple(Column(row["column"], row["kind"]) for row in rows), tuple(key))


async def _load(connection: Any, table: Table, rows: Sequence[Row]) -> None:
    try:
        await connection.copy_records_to_table(table.name, records=rows, columns=table.names)
    except (asyncpg.DataError, ValueError, TypeError) as error:
        raise FleetError(
            f"table {table.name}: a row cannot be moved: {error}", hint="correct the row, then try again"
        ) from error


async def _advance(connection: Any, table: Table, column: Column) -> None:
    sequence = await connection.fetchval("SELECT pg_get_serial_sequence($1, $2)", table.sql, column.name)
    if sequence is not None:
        largest = f"greatest(coalesce(max({quoted(column.name)}), 0), 1)"
        await connection.execute(f"SELECT setval({literal(sequence)}, {largest}) FROM {table.sql}")


def _ordered(column: Column) -> str:
    """By bytes, as SQLite does."""
    name = quoted(column.name)
    return f'{name} COLLATE "C"' if column.kind in _TEXT_KINDS else name


def _wanted(table: Table) -> str:
    arrays = ", ".join(f"${number}::{column.kind}[]" for number, column in enumerate(table.key_columns, 1))
    names = ", ".join(f"k{number}" for number, _ in enumerate(table.key, 1))
    return f"unnest({arrays}) AS wanted ({names})"


def _matched(table: Table) -> str:
    return " AND ".join(
        f"{table.sql}.{quoted(name)} = wanted.k{number}" for number, name in enumerate(table.key, 1)
    )


def _arrays(table: Table, keys: Iterable[Key]) -> list[list[Any]]:
    found = list(keys)
    return [[key[place] for key in found] for place in range(len(table.key))]


def _values(table: Table, row: Any) -> Row:
    return tuple(
        _document(value) if column.kind in _JSON_KINDS and value is not None else value
        for column, value in zip(table.columns, row, strict=True)
    )


def _document(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False, separators=(",", ":"))

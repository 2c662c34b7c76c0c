"""A PostgreSQL database as source and as target of a copy. Works as its superuser: foreign keys must wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from outgrow.errors import FleetError
from outgrow.growth.data.columns import Column, Table, from_json, literal, quoted
from outgrow.growth.data.sqlite import OWN_STATE, Key, Row

CONNECT_WITHIN_S = 10.0
LOCK_WAIT_S = 1
LOCK_ATTEMPTS = 30
LOCK_PAUSE_S = 0.5

_TABLES = """
SELECT c.relname AS name, a.attname AS "column", a.attnum AS number, k.place,
    CASE t.typtype WHEN 'e' THEN 'enum' ELSE t.typname END AS kind
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
CREATE TABLE IF NOT EXISTS outgrow_changes (
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(), tab text NOT NULL, key jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS outgrow_changes_transaction ON outgrow_changes (transaction);
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


_CAPTURED = """
SELECT c.relname AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE t.tgname = 'outgrow_capture' AND c.relnamespace = 'public'::regnamespace
"""

_USERS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND datname = current_database()"

_SEQUENCES = """
SELECT c.relname AS name, a.attname AS "column", s.oid::regclass::text AS sequence
FROM pg_depend d
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_class c ON c.oid = d.refobjid AND c.relnamespace = 'public'::regnamespace
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
"""


class PostgresStore:
    """The database at `url`. `application` is the role that writes to it at other times."""

    def __init__(self, url: str, password: str, application: str) -> None:
        self._url = url
        self._password = password
        self._role = application
        self._keeping = False
        self._idle: list[Any] = []

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
        await self._patiently(_CAPTURE)
        for table in tables:
            arguments = ", ".join(literal(name) for name in table.key)
            await self._patiently(
                f"CREATE OR REPLACE TRIGGER outgrow_capture AFTER INSERT OR UPDATE OR DELETE ON {table.sql} "
                f"FOR EACH ROW EXECUTE FUNCTION outgrow_capture({arguments})"
            )

    async def release(self) -> None:
        """Note nothing any more, and forget what was noted."""
        async with self._connection() as connection:
            captured = [row["name"] for row in await connection.fetch(_CAPTURED)]
        for name in captured:
            await self._patiently(f"DROP TRIGGER IF EXISTS outgrow_capture ON {quoted(name)}")
        await self._patiently("DROP FUNCTION IF EXISTS outgrow_capture()")
        await self._patiently("DROP TABLE IF EXISTS outgrow_changes")

    async def _patiently(self, sql: str) -> None:
        """Each change of a table alone, since whoever waits while it holds a lock can wait in a circle.

        Behind a lock that is waited for everybody else waits: not for long, then it is tried again.
        """
        for attempt in range(1, LOCK_ATTEMPTS + 1):
            async with self._connection() as connection:
                try:
                    async with connection.transaction():
                        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
                        await connection.execute(sql)
                    return
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                    if attempt == LOCK_ATTEMPTS:
                        raise
            await asyncio.sleep(LOCK_PAUSE_S)

    async def users(self) -> int:
        """How many connections the application still has."""
        async with self._connection() as connection:
            return int(await connection.fetchval(_USERS, self._role))

    async def unfence(self) -> None:
        """Let the application write to it again."""
        async with self._connection() as connection:
            await connection.execute(
                f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted(self._role)}"
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
                await connection.execute("SET LOCAL lock_timeout = '2s'")
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

    async def load(self, table: Table, pages: AsyncIterator[list[Row]]) -> None:
        """Add rows."""
        async with self._connection() as connection:
            async for rows in pages:
                await _load(connection, table, rows)

    async def replace(
        self, gone: Sequence[tuple[Table, list[Key]]], come: AsyncIterator[tuple[Table, list[Row]]]
    ) -> dict[str, int]:
        """In one transaction: rows with these keys go, these rows come. Returns how each table has grown."""
        grown: dict[str, int] = {}
        async with self._connection() as connection, connection.transaction():
            for table, keys in gone:
                told = await connection.execute(
                    f"DELETE FROM {table.sql} USING {_wanted(table)} WHERE {_matched(table)}",
                    *_arrays(table, keys),
                )
                grown[table.name] = grown.get(table.name, 0) - int(told.split()[-1])
            async for table, rows in come:
                await _load(connection, table, rows)
                grown[table.name] += len(rows)
        return grown

    async def go_on(self, tables: Sequence[Table]) -> None:
        """Sequences go on after the largest value."""
        names = {table.name for table in tables}
        async with self._connection() as connection:
            for row in await connection.fetch(_SEQUENCES):
                if row["name"] in names:
                    column, table = quoted(row["column"]), quoted(row["name"])
                    await connection.execute(
                        f"SELECT setval({literal(row['sequence'])}, coalesce(max({column}), 1), "
                        f"max({column}) IS NOT NULL) FROM {table}"
                    )

    async def finish(self) -> None:
        """Everything has been copied: the planner is to know how much there is."""
        async with self._connection() as connection:
            await connection.execute("ANALYZE")

    @asynccontextmanager
    async def kept_open(self) -> AsyncIterator[None]:
        """Inside it connections are used again: while writes are held nothing waits for a new one."""
        self._keeping = True
        try:
            async with self._connection():
                pass
            yield
        finally:
            self._keeping = False
            while self._idle:
                await self._idle.pop().close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            yield connection
        except asyncpg.PostgresError as error:
            raise FleetError(f"PostgreSQL: {error}") from error
        finally:
            if self._keeping and not connection.is_closed() and not connection.is_in_transaction():
                self._idle.append(connection)
            else:
                await connection.close()

    async def _connect(self) -> Any:
        try:
            return await asyncpg.connect(
                self._url,
                password=self._password,
                timeout=CONNECT_WITHIN_S,
                # Rows come in any order; they are verified as a whole. Triggers of the copy do not fire.
                server_settings={"session_replication_role": "replica", "application_name": "outgrow-growth"},
            )
        except (OSError, asyncpg.PostgresError) as error:
            raise FleetError(f"PostgreSQL does not answer: {error}") from error


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
            self.mark = await self._connection.fetchval(
                "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            )

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
        # The fleet's PostgreSQL has the locale C: text is in the order of its bytes, as in SQLite.
        key = ", ".join(map(quoted, table.key))
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
        return [tuple(row) for row in rows]

    async def changed(self, tables: Sequence[Table], since: int) -> dict[str, set[Key]]:
        """The keys of the rows that have changed and that the snapshot with that mark did not see.

        A mark is the oldest transaction that was still under way: everything before it had been seen.
        Some that came later had been seen as well, and a row that is copied twice is the same row.
        """
        by_name = {table.name: table for table in tables}
        found: dict[str, set[Key]] = {}
        noted = await self._connection.fetch(
            "SELECT DISTINCT tab, key::text FROM outgrow_changes WHERE transaction >= $1::text::xid8",
            str(since),
        )
        for name, text in noted:
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
        return [tuple(row) for row in rows]

    async def fence(self) -> None:
        """The application may not write to it any more, once `commit` has returned."""
        role = quoted(self._role)
        await self._connection.execute(
            f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public FROM {role}"
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
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError) as error:
        raise FleetError(
            f"table {table.name}: a row cannot be moved: {error}", hint="correct the row, then try again"
        ) from error


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

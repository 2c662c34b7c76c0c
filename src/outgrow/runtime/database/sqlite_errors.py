"""sqlite3's errors in Outgrow's words."""

from __future__ import annotations

import re
import sqlite3

from outgrow import errors

REFUSED = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""SQLite's own errors, and the module's for what it cannot hand over: an integer of more than 64 bits, half
of a surrogate pair."""

_UNIQUE = re.compile(r"UNIQUE constraint failed: (?:index '(?P<index>[^']+)'|(?P<columns>.+))")


def interrupted(error: Exception) -> bool:
    """Whether it took too long, and was nothing else."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def busy(error: BaseException) -> bool:
    """Whether another connection was in the way: a moment later it may not be."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translate(error: Exception, label: str, node: str, timeout_s: float) -> errors.DatabaseError:
    """Of the statement with this label, which may run for so long."""
    code = getattr(error, "sqlite_errorcode", None)
    text = f"{label}: {error}"
    if isinstance(error, IndexError) or "no such table: outgrow_" in str(error):
        return errors.SchemaMissing(
            "Outgrow's own tables are missing",
            node=node,
            hint="run `outgrow migrate` (`outgrow up` does it by itself)",
        )
    if isinstance(error, sqlite3.IntegrityError):
        return _integrity(error, code, text, node)
    if code == sqlite3.SQLITE_INTERRUPT:
        return errors.StatementTimeout(f"{label} ran for more than {timeout_s:g} s", node=node)
    if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY:
        return errors.ReadOnlyViolation(
            f"{label}: this is a read block", node=node, hint="write inside `async with og.db.write():`"
        )
    if busy(error):
        return errors.Unavailable(f"{label}: another process holds the write lock", node=node)
    return errors.DatabaseError(text, node=node)


def _integrity(
    error: sqlite3.IntegrityError, code: int | None, text: str, node: str
) -> errors.IntegrityError:
    if code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
        found = _UNIQUE.search(str(error))
        columns = found["columns"] if found and found["columns"] else ""
        return errors.UniqueViolation(
            text,
            node=node,
            constraint=(found["index"] or "") if found else "",
            columns=tuple(column.strip().rpartition(".")[2] for column in columns.split(",") if column),
        )
    tail = str(error).rpartition(": ")[2]
    if code == sqlite3.SQLITE_CONSTRAINT_NOTNULL:
        return errors.NotNullViolation(text, node=node, columns=(tail.rpartition(".")[2],))
    if code == sqlite3.SQLITE_CONSTRAINT_CHECK:
        return errors.CheckViolation(text, node=node, constraint=tail)
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return errors.ForeignKeyViolation(text, node=node)
    return errors.IntegrityError(text, node=node)

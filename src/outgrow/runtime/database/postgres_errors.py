"""asyncpg's errors in Outgrow's words."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import asyncpg

from outgrow import errors

CONNECTION_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError, OSError)

_KEY = re.compile(r"Key \((?P<columns>[^=]+)\)=\(")
_NOT_SERVING = ("57P01", "57P02", "57P03", "25006", "53300")


def may_come_back(error: BaseException) -> bool:
    """Not when the server has understood and refused: a wrong password stays wrong."""
    state = getattr(error, "sqlstate", None)
    if state == "08P01" and "authentication failed" in str(error):  # so PgBouncer says it
        return False
    return state is None or state in _NOT_SERVING or state.startswith("08")


def unreachable(error: BaseException, node: str, url: str) -> errors.Unavailable:
    """No connection to this address, and why."""
    parts = urlsplit(url)
    place = f"{parts.username or ''}@{parts.hostname}:{parts.port or 5432}{parts.path}"
    hint = "check the user, its password and the database's name in outgrow.toml"
    if may_come_back(error):
        hint = "check that the server runs and accepts connections at this address"
    return errors.Unavailable(
        f"no connection to {place}: {str(error) or type(error).__name__}", node=node, hint=hint
    )


def translate(error: Exception, label: str, node: str, timeout_s: float) -> errors.DatabaseError:
    """Of the statement with this label, which may run for so long."""
    state = getattr(error, "sqlstate", None) or ""
    text = f"{label}: {error}"
    if label == "COMMIT" and (isinstance(error, TimeoutError) or _not_serving(error, state)):
        return _unknown(error, node)
    if state.startswith("23"):
        return _integrity(error, state, text, node)
    if state in ("40001", "40P01", "55P03"):
        return errors.Conflict(text, node=node)
    if state == "57014" or isinstance(error, TimeoutError):
        return errors.StatementTimeout(f"{label} ran for more than {timeout_s:g} s", node=node)
    if state == "25006" and "BEGIN" not in label and "COMMIT" not in label:
        return errors.ReadOnlyViolation(
            f"{label}: this is a read block", node=node, hint="write inside `async with og.db.write():`"
        )
    if state == "42P01" and "outgrow_" in str(error):
        return errors.SchemaMissing(
            "Outgrow's own tables are missing",
            node=node,
            hint="run `outgrow migrate` (`outgrow up` does it by itself)",
        )
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return errors.Conflict(f"{label}: the schema has changed meanwhile", node=node)
    if _not_serving(error, state):
        return errors.Unavailable(f"{label}: the connection was lost ({error})", node=node)
    return errors.DatabaseError(text, node=node)


def _not_serving(error: Exception, state: str) -> bool:
    demoted = state == "0A000" and "during recovery" in str(error)  # BEGIN READ WRITE on a replica
    return demoted or state in _NOT_SERVING or state.startswith("08") or _lost(error)


def _unknown(error: Exception, node: str) -> errors.OutcomeUnknown:
    if isinstance(error, TimeoutError):
        reason = "it was not answered in time; it may wait for a synchronous replica that is gone"
    else:
        reason = f"the connection was lost ({error})"
    return errors.OutcomeUnknown(
        f"COMMIT: {reason}",
        node=node,
        hint="it may or may not have happened: look, or use og.db.transact(..., idempotency_key=...)",
    )


def _lost(error: Exception) -> bool:
    if isinstance(error, asyncpg.InterfaceError):  # also raised for a wrong argument
        return "closed" in str(error)
    if isinstance(error, asyncpg.InternalClientError):  # the protocol was torn off in mid-message
        return True
    return isinstance(error, CONNECTION_LOST)


def _integrity(error: Exception, state: str, text: str, node: str) -> errors.IntegrityError:
    kinds: dict[str, type[errors.IntegrityError]] = {
        "23505": errors.UniqueViolation,
        "23503": errors.ForeignKeyViolation,
        "23502": errors.NotNullViolation,
        "23514": errors.CheckViolation,
    }
    found = _KEY.search(getattr(error, "detail", None) or "")
    column = getattr(error, "column_name", None)
    columns = (
        tuple(name.strip() for name in found["columns"].split(",")) if found else (column,) if column else ()
    )
    kind = kinds.get(state, errors.IntegrityError)
    return kind(text, node=node, constraint=getattr(error, "constraint_name", None) or "", columns=columns)

"""What a value is on both sides: PostgreSQL's types decide, SQLite's storage follows SQLAlchemy's habits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from outgrow.errors import FleetError

EPOCH = datetime(1970, 1, 1)


def quoted(name: str) -> str:
    """An identifier, for both."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, for both."""
    return "'" + text.replace("'", "''") + "'"


class Column(NamedTuple):
    """A column and PostgreSQL's name of its type (pg_type.typname)."""

    name: str
    kind: str


class Table(NamedTuple):
    """A table: its columns, in an order that both sides use, and its primary key."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def sql(self) -> str:
        """Its name, quoted."""
        return quoted(self.name)

    @property
    def columns_sql(self) -> str:
        """Its columns' names, quoted, with commas."""
        return ", ".join(map(quoted, self.names))

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The columns of the primary key, in its order."""
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in self.key)

    def key_of(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """A row's key."""
        names = self.names
        return tuple(row[names.index(name)] for name in self.key)


def from_sqlite(kind: str) -> Callable[[Any], Any]:
    """From what SQLite holds to the value. Raises FleetError for a type that cannot be moved."""
    try:
        return _FROM_SQLITE[kind]
    except KeyError:
        raise FleetError(f"columns of type {kind} cannot be moved live", hint=_HINT) from None


def to_sqlite(kind: str) -> Callable[[Any], Any]:
    """From the value to what SQLite is to hold."""
    try:
        return _TO_SQLITE[kind]
    except KeyError:
        raise FleetError(f"columns of type {kind} cannot be moved live", hint=_HINT) from None


def from_json(kind: str) -> Callable[[Any], Any]:
    """From a key in JSON, as a trigger notes it, to the value."""
    return _FROM_JSON.get(kind, _same)


def plain(value: Any) -> Any:
    """What is hashed and compared: one form for values that mean the same."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, Decimal):
        return str(value.normalize()) if value else "0"
    if isinstance(value, float) and value == 0:
        return 0.0
    return value


_HINT = "move this table by hand, or give the column a plain type in a migration"


def _same(value: Any) -> Any:
    return value


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and not (math.isfinite(value) and number == value):
        raise ValueError(f"{value!r} is not a whole number")
    return number


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        raise ValueError("a text column holds bytes")
    return str(value)


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _aware(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _naive(value: Any) -> datetime:
    return datetime.fromisoformat(value)


def _document(value: Any) -> str:
    """JSON in one form: PostgreSQL's jsonb orders keys and spaces its own way."""
    return json.dumps(json.loads(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _stored_moment(value: datetime) -> str:
    moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value
    return moment.isoformat(" ", "microseconds")


def _stored_span(value: timedelta) -> str:
    return (EPOCH + value).isoformat(" ", "microseconds")


def _some(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


_WHOLE = ("int2", "int4", "int8")
_TEXT = ("text", "varchar", "bpchar", "name")
_JSON = ("json", "jsonb")

_FROM_SQLITE: dict[str, Callable[[Any], Any]] = {
    **{kind: _some(_whole) for kind in _WHOLE},
    **{kind: _some(_text) for kind in _TEXT},
    **{kind: _some(_document) for kind in _JSON},
    "bool": _some(bool),
    "float4": _some(float),
    "float8": _some(float),
    "numeric": _some(lambda value: Decimal(str(value))),
    "bytea": _some(_bytes),
    "timestamptz": _some(_aware),
    "timestamp": _some(_naive),
    "date": _some(date.fromisoformat),
    "time": _some(time.fromisoformat),
    "interval": _some(lambda value: datetime.fromisoformat(value) - EPOCH),
    "uuid": _some(UUID),
}

_TO_SQLITE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys((*_WHOLE, *_TEXT, *_JSON, "float4", "float8", "bytea"), _same),
    "bool": _some(int),
    "numeric": _some(str),
    "timestamptz": _some(_stored_moment),
    "timestamp": _some(_stored_moment),
    "date": _some(date.isoformat),
    "time": _some(lambda value: value.isoformat("microseconds")),
    "interval": _some(_stored_span),
    "uuid": _some(lambda value: value.hex),
}

_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "uuid": UUID,
    "numeric": lambda value: Decimal(str(value)),
    "timestamptz": _aware,
    "timestamp": _naive,
    "date": date.fromisoformat,
}

"""What a value is on both sides: PostgreSQL's types decide, SQLite's storage follows SQLAlchemy's habits."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
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
    """A column and PostgreSQL's name of its type (pg_type.typname), or "enum" for each of those."""

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
    """From what SQLite holds to the value, for a kind that `require_movable` has let pass."""
    return _FROM_SQLITE[kind]


def to_sqlite(kind: str) -> Callable[[Any], Any]:
    """From the value to what SQLite is to hold."""
    return _TO_SQLITE[kind]


def from_json(kind: str) -> Callable[[Any], Any]:
    """From a key in JSON, as a trigger notes it, to the value."""
    return _FROM_JSON.get(kind, _same)


def plain(table: Table, rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """What is hashed and compared: one form for values that mean the same."""
    steps = [
        (place, _PLAIN[column.kind]) for place, column in enumerate(table.columns) if column.kind in _PLAIN
    ]
    found = [list(row) for row in rows]
    for row in found:
        for place, step in steps:
            if row[place] is not None:
                row[place] = step(row[place])
    return found


def require_movable(tables: Sequence[Table]) -> None:
    """Raises FleetError, naming every column whose type is not carried over faithfully."""
    wrong = [
        f"{table.name}.{column.name} ({column.kind})"
        for table in tables
        for column in table.columns
        if column.kind not in _FROM_SQLITE or (column.name in table.key and column.kind not in KEY_KINDS)
    ]
    if wrong:
        raise FleetError(f"columns of these types cannot be moved live: {', '.join(wrong)}", hint=_HINT)


def require_same(tables: Sequence[Table], others: Mapping[str, set[str]]) -> None:
    """Raises FleetError when one database has a table or a column that the other has not."""
    mine = {table.name: set(table.names) for table in tables}
    different = sorted(mine.keys() ^ others.keys())
    different += sorted(
        f"{name}.{column}" for name in mine.keys() & others.keys() for column in mine[name] ^ others[name]
    )
    if different:
        raise FleetError(
            f"the two databases do not have the same tables and columns: {', '.join(different)}",
            hint="what is outside of the migrations is in one alone: add it to them, or drop it",
        )


_HINT = "give them a plain type in a migration (docs/growth.md lists which), or move the data by hand"


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


def _json(value: Any) -> str:
    json.loads(value)
    return str(value)


def _document(value: Any) -> str:
    """JSON in one form: PostgreSQL's jsonb orders keys, spaces and writes numbers its own way."""
    document = json.loads(value, parse_float=_number)
    return json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _number(text: str) -> float | int:
    """jsonb writes out what others write with an exponent, and knows no negative zero."""
    number = float(text) + 0.0
    return int(number) if math.isfinite(number) and number.is_integer() else number


def _short_float(value: Any) -> float:
    """As PostgreSQL's real keeps it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _shortest(value: float) -> float:
    """The number with the fewest digits that a real keeps as this one: what was written, mostly."""
    shown = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next((number for number in shown if _short_float(number) == value), value)


def _padless(value: Any) -> str:
    """Blanks at the end of a char(n) mean nothing to PostgreSQL, which adds them."""
    return _text(value).rstrip(" ")


def _stored_moment(value: datetime) -> str:
    moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value
    return moment.isoformat(" ", "microseconds")


def _stored_span(value: timedelta) -> str:
    return (EPOCH + value).isoformat(" ", "microseconds")


def _some(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


_WHOLE = ("int2", "int4", "int8")
_TEXT = ("text", "varchar", "name", "enum")
_JSON = ("json", "jsonb")
KEY_KINDS = frozenset({*_WHOLE, "text", "varchar", "uuid", "date", "timestamp", "timestamptz"})
"""What a trigger can note in JSON and what both databases put into the same order."""

_FROM_SQLITE: dict[str, Callable[[Any], Any]] = {
    **{kind: _some(_whole) for kind in _WHOLE},
    **{kind: _some(_text) for kind in _TEXT},
    **{kind: _some(_json) for kind in _JSON},
    "bpchar": _some(_padless),
    "bool": _some(bool),
    "float4": _some(_short_float),
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
    **dict.fromkeys((*_WHOLE, *_TEXT, *_JSON, "float8", "bytea"), _same),
    "bool": _some(int),
    "bpchar": _some(_padless),
    "float4": _some(_shortest),
    "numeric": _some(str),
    "timestamptz": _some(_stored_moment),
    "timestamp": _some(_stored_moment),
    "date": _some(date.isoformat),
    "time": _some(lambda value: value.isoformat("microseconds")),
    "interval": _some(_stored_span),
    "uuid": _some(lambda value: value.hex),
}

_PLAIN: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_JSON, _document),
    "bpchar": _padless,
    "timestamptz": lambda value: value.astimezone(UTC),
    "numeric": lambda value: str(value.normalize()) if value else "0",
    "float4": lambda value: value + 0.0,
    "float8": lambda value: value + 0.0,
}

_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "uuid": UUID,
    "timestamptz": _aware,
    "timestamp": _naive,
    "date": date.fromisoformat,
}

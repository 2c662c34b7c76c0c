"""What PostgreSQL tells of changed rows (its plugin `pgoutput`, protocol version 1), decoded.

    B  begin       xid, and where the commit ends        R  relation   what the columns of a table are called
    I  insert      the new row                           U  update     perhaps the old row, and the new one
    D  delete      the old row                           T  truncate   tables
    M  message     what the transaction says of itself   C  commit

A transaction comes whole, after its commit, in the order of the commits; row by row, so the largest one takes
no more memory than its largest row. Source: PostgreSQL's manual, "Logical Replication Message Formats".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, NamedTuple

import msgspec

Row = Mapping[str, Any]

_BEGIN = Struct("!qqI")
_COMMIT = Struct("!Bqqq")
_INT16 = Struct("!h")
_INT32 = Struct("!I")
_INT64 = Struct("!q")
_COLUMN = Struct("!Ii")

EPOCH_S = 946_684_800
"""PostgreSQL counts from the first of January 2000."""

_READ: dict[int, Callable[[bytes], Any]] = {
    16: lambda text: text == b"t",  # boolean
    **dict.fromkeys((20, 21, 23, 26), int),  # bigint, smallint, integer, oid
    **dict.fromkeys((700, 701), float),  # real, double precision
    **dict.fromkeys((114, 3802), msgspec.json.decode),  # json, jsonb
}
"""By the number of a type; everything else is the text in which PostgreSQL writes it."""


class Begin(NamedTuple):
    """A transaction that has committed follows."""

    xid: int


class Commit(NamedTuple):
    """It is whole. `end` is the LSN after its commit, `at` when that was, in Unix time."""

    end: int
    at: float


class Change(NamedTuple):
    """A row. `old` is what REPLICA IDENTITY gives: with FULL all of it, else its key, and of an update that
    leaves the key alone nothing. A value that is large and did not change may be missing in `new`."""

    table: str
    old: Row | None
    new: Row | None


class Truncate(NamedTuple):
    """All rows of these tables are gone."""

    tables: tuple[str, ...]


class Said(NamedTuple):
    """What the transaction has said by pg_logical_emit_message."""

    prefix: str
    content: bytes


Message = Begin | Commit | Change | Truncate | Said


class _Column(NamedTuple):
    name: str
    key: bool
    read: Callable[[bytes], Any]


class _Table(NamedTuple):
    name: str
    columns: tuple[_Column, ...]


class Decoder:
    """Of one connection: what is told of a table comes once, before its first row.

    `wanted` is asked by name whether the rows of a table are; those of others are not looked at. A table of
    the schema `public` is called by its name alone, any other like "audit.events".
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._tables: dict[int, _Table | None] = {}

    def decode(self, data: bytes) -> Message | None:
        """None for what says nothing of rows that are wanted."""
        kind = data[:1]
        if kind in b"IUD":
            table = self._tables[_INT32.unpack_from(data, 1)[0]]
            return None if table is None else _change(kind, data, table)
        if kind == b"B":
            return Begin(_BEGIN.unpack_from(data, 1)[2])
        if kind == b"C":
            _, _, end, at = _COMMIT.unpack_from(data, 1)
            return Commit(end, at / 1e6 + EPOCH_S)
        if kind == b"R":
            self._learn(data)
        elif kind == b"T":
            return self._truncate(data)
        elif kind == b"M":
            prefix, place = _text(data, 10)
            return Said(prefix, data[place + 4 :])
        return None

    def _learn(self, data: bytes) -> None:
        (number,) = _INT32.unpack_from(data, 1)
        schema, place = _text(data, 5)
        name, place = _text(data, place)
        name = name_of(schema, name)
        if not self._wanted(name):
            self._tables[number] = None
            return
        (count,) = _INT16.unpack_from(data, place + 1)
        place += 3
        columns = []
        for _ in range(count):
            key = data[place] & 1 == 1
            column, place = _text(data, place + 1)
            kind, _ = _COLUMN.unpack_from(data, place)
            place += 8
            columns.append(_Column(column, key, _READ.get(kind, bytes.decode)))
        self._tables[number] = _Table(name, tuple(columns))

    def _truncate(self, data: bytes) -> Truncate | None:
        (count,) = _INT32.unpack_from(data, 1)
        tables = [self._tables[_INT32.unpack_from(data, 6 + 4 * each)[0]] for each in range(count)]
        wanted = tuple(table.name for table in tables if table is not None)
        return Truncate(wanted) if wanted else None


def name_of(schema: str, table: str) -> str:
    """What a table is called here."""
    return table if schema == "public" else f"{schema}.{table}"


def _change(kind: bytes, data: bytes, table: _Table) -> Change:
    if kind == b"I":
        return Change(table.name, None, _row(data, 6, table.columns)[0])
    old, place = None, 5
    which = data[5:6]
    if which in b"KO":
        old, place = _row(data, 6, table.columns)
        if which == b"K":  # the others are told as if they were NULL
            old = {each.name: old[each.name] for each in table.columns if each.key}
    if kind == b"D":
        return Change(table.name, old, None)
    new, _ = _row(data, place + 1, table.columns)
    if old is not None and len(new) < len(table.columns):  # large values that did not change
        new = {**{name: value for name, value in old.items() if name not in new}, **new}
    return Change(table.name, old, new)


def _row(data: bytes, place: int, columns: tuple[_Column, ...]) -> tuple[dict[str, Any], int]:
    row: dict[str, Any] = {}
    place += 2
    for column in columns:
        kind = data[place]
        place += 1
        if kind == 0x74:  # t
            (size,) = _INT32.unpack_from(data, place)
            place += 4
            row[column.name] = column.read(data[place : place + size])
            place += size
        elif kind == 0x6E:  # n
            row[column.name] = None
    return row, place


def _text(data: bytes, place: int) -> tuple[str, int]:
    end = data.index(0, place)
    return data[place:end].decode(), end + 1

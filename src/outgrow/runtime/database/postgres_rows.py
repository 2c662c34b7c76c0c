"""What asyncpg returns, as an application wants it: rows with named columns, values of SQLAlchemy's types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from outgrow.runtime.database.statement import Compiled


class Row(asyncpg.Record):  # type: ignore[misc]  # asyncpg is untyped
    """asyncpg's record, with its columns as attributes too."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"the row has no column {name!r}; it has: {', '.join(self.keys())}"
            ) from None


class ProcessedRow(tuple[Any, ...]):
    """A row whose values SQLAlchemy's types have processed; asyncpg's own cannot be built here."""

    _names: dict[str, int]

    def __new__(cls, values: Sequence[Any], names: dict[str, int]) -> ProcessedRow:
        row = super().__new__(cls, values)
        row._names = names
        return row

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._names[key] if isinstance(key, str) else key)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getitem__(self._names[name])
        except KeyError:
            raise AttributeError(
                f"the row has no column {name!r}; it has: {', '.join(self._names)}"
            ) from None

    def keys(self) -> Sequence[str]:
        """The columns' names."""
        return list(self._names)


def processed(compiled: Compiled, rows: list[Row]) -> list[Any]:
    """The rows as SQLAlchemy's types want them."""
    return _process(compiled, rows) if compiled.results and rows else rows


def _process(compiled: Compiled, rows: Sequence[Row]) -> list[Any]:
    names = {name: index for index, name in enumerate(rows[0].keys())}
    processed = []
    for row in rows:
        values = list(row)
        for index, processor in compiled.results:
            values[index] = processor(values[index])
        processed.append(ProcessedRow(values, names))
    return processed

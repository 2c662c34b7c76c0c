"""What was measured in the last two hours, second by second: a ring of rows in one file.

    measures.ring   header, then one row a second: time, checksum, one number a series
    measures.json   which series has which column; replaced whole when a series is new

A row is written once, in its place (its second modulo the ring's length), so the file has its size from
the second hour on and nothing is ever moved. A crash can tear the row that is being written: its checksum
tells, and that second is missing. Nothing is kept in memory but the names.
"""

from __future__ import annotations

import math
import os
import struct
import time
import uuid
import zlib
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

SECONDS = 7200
SERIES_MAX = 256
MAGIC = b"OGMEAS1\n"
_HEADER = struct.Struct("<8s16sII")
_HEADER_BYTES = 4096
_ROW = struct.Struct("<dII")
"""Time (Unix), CRC-32 of the rest of the row and the time, nothing."""

_LEAD = _ROW.size // 4
_BLOCK_ROWS = 256
_RECLAIM_EVERY_S = 60.0


class Names(msgspec.Struct):
    """measures.json. It belongs to the ring with the same id."""

    id: str
    columns: dict[str, int]


class Curves(msgspec.Struct):
    """Series over time: value i is for `step_s` seconds from `since` + i * step_s on; null: unknown."""

    since: int
    step_s: int
    series: dict[str, list[float | None]]


class History:
    """The ring in a folder. It is made where there is none, and anew where it is not what it should be."""

    def __init__(self, folder: Path, *, seconds: int = SECONDS, series_max: int = SERIES_MAX) -> None:
        self._seconds = seconds
        self._width = series_max
        self._row_bytes = _ROW.size + 4 * series_max
        self._ring, self._names_file = folder / "measures.ring", folder / "measures.json"
        self._file = os.open(self._ring, os.O_RDWR | os.O_CREAT, 0o600)
        self._names = self._known() or self._begin()
        self._reclaimed = -math.inf
        self.left_out: set[str] = set()
        """Series for which there was no column any more."""

    @property
    def series(self) -> Collection[str]:
        """The names of what is kept."""
        return self._names.columns.keys()

    def append(self, at: float, figures: Mapping[str, float]) -> None:
        """Keep the figures of this second. What is not named is unknown. Raises OSError on a full disk."""
        values = array("f", [math.nan]) * self._width
        for name, figure in figures.items():
            column = self._column(name, figures)
            if column is not None:
                values[column] = figure
        data = values.tobytes()
        row = _ROW.pack(at, _checksum(at, data), 0) + data
        os.pwrite(self._file, row, self._place(int(at) % self._seconds))

    def read(
        self,
        names: Sequence[str],
        *,
        since: float,
        until: float,
        step_s: int = 1,
        worst: Collection[str] = (),
    ) -> Curves:
        """These series between two moments, a value for each `step_s` seconds.

        A value is the mean of its seconds, for those in `worst` the highest.
        """
        first = int(since) // step_s * step_s
        last = int(until)
        known = {name: self._names.columns[name] for name in names if name in self._names.columns}
        rows: dict[str, list[float]] = {name: [] for name in known}
        for block, good in self._blocks(first, last):
            floats = memoryview(block).cast("f")
            for name, column in known.items():
                values = floats[_LEAD + column :: self._row_bytes // 4].tolist()
                rows[name] += [v if ok else math.nan for v, ok in zip(values, good, strict=True)]
        return Curves(first, step_s, {name: _steps(row, step_s, name in worst) for name, row in rows.items()})

    def close(self) -> None:
        """No more rows."""
        os.close(self._file)

    def _place(self, slot: int) -> int:
        return _HEADER_BYTES + slot * self._row_bytes

    def _blocks(self, first: int, last: int) -> Iterator[tuple[bytes, list[bool]]]:
        """The rows of these seconds in order, and for each whether it is that second's."""
        second = first
        while second <= last:
            slot = second % self._seconds
            count = min(_BLOCK_ROWS, last - second + 1, self._seconds - slot)
            block = os.pread(self._file, count * self._row_bytes, self._place(slot))
            block += b"\0" * (count * self._row_bytes - len(block))
            times = memoryview(block).cast("d")[:: self._row_bytes // 8].tolist()
            yield block, [int(at) == second + i for i, at in enumerate(times)]
            second += count

    def _column(self, name: str, present: Collection[str]) -> int | None:
        column = self._names.columns.get(name)
        return self._add(name, present) if column is None else column

    def _add(self, name: str, present: Collection[str]) -> int | None:
        taken = set(self._names.columns.values())
        free = next((column for column in range(self._width) if column not in taken), None)
        if free is None:
            free = self._reclaim(present)
        if free is None:
            self.left_out.add(name)
            return None
        self._names.columns[name] = free
        self._keep_names()
        return free

    def _reclaim(self, present: Collection[str]) -> int | None:
        """The column of a series that the ring has nothing of any more: its node is long gone."""
        now = time.monotonic()
        if now - self._reclaimed < _RECLAIM_EVERY_S:
            return None
        self._reclaimed = now
        for name, column in list(self._names.columns.items()):
            if name not in present and self._is_empty(column):
                del self._names.columns[name]
                return column
        return None

    def _is_empty(self, column: int) -> bool:
        for slot in range(0, self._seconds, _BLOCK_ROWS):
            rows = min(_BLOCK_ROWS, self._seconds - slot)
            block = os.pread(self._file, rows * self._row_bytes, self._place(slot))
            if len(block) % 4:
                return False
            values = memoryview(block).cast("f")[_LEAD + column :: self._row_bytes // 4].tolist()
            if not all(value == 0.0 or math.isnan(value) for value in values):
                return False
        return True

    def _known(self) -> Names | None:
        """The names of the ring in the file, if both are whole; torn rows are taken out."""
        try:
            names = msgspec.json.decode(self._names_file.read_bytes(), type=Names)
        except (OSError, msgspec.DecodeError):
            return None
        header = os.pread(self._file, _HEADER.size, 0)
        if header != self._header(names.id):
            return None
        self._drop_torn_rows()
        return names

    def _begin(self) -> Names:
        names = Names(uuid.uuid4().hex, {})
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, self._header(names.id), 0)
        self._names = names
        self._keep_names()
        return names

    def _header(self, identity: str) -> bytes:
        try:
            return _HEADER.pack(MAGIC, bytes.fromhex(identity), self._seconds, self._width)
        except (ValueError, struct.error):
            return b""

    def _keep_names(self) -> None:
        temporary = self._names_file.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(self._names))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._names_file)

    def _drop_torn_rows(self) -> None:
        for slot in range(self._seconds):
            row = os.pread(self._file, self._row_bytes, self._place(slot))
            if len(row) < _ROW.size:
                return
            at, checksum, _ = _ROW.unpack_from(row)
            if at and (len(row) < self._row_bytes or checksum != _checksum(at, row[_ROW.size :])):
                os.pwrite(self._file, b"\0" * self._row_bytes, self._place(slot))


def _checksum(at: float, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack("<d", at)))


def _steps(values: list[float], step_s: int, worst: bool) -> list[float | None]:
    if step_s == 1:
        return [None if math.isnan(value) else _short(value) for value in values]
    found: list[float | None] = []
    for start in range(0, len(values), step_s):
        known = [value for value in values[start : start + step_s] if not math.isnan(value)]
        if not known:
            found.append(None)
        else:
            found.append(_short(max(known) if worst else sum(known) / len(known)))
    return found


def _short(value: float) -> float:
    """Four digits, of which a single-precision number has seven."""
    return float(f"{value:.4g}")

"""What there is, in the folder of the backups: files alone, so that they are found when nothing else is left.

    NAME/0001/history.json             of which database, since when
         0001/copies/20261126T150405Z/ base.tar.gz, pg_wal.tar.gz, backup_manifest, copy.json
         0001/wal/                     the write-ahead log since then, in PostgreSQL's own files

A history is one unbroken line of writes. After a restore another one begins: what was written after the
moment that was restored belongs to the old line, and is kept as long as its time is within `keep`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from outgrow.errors import Misuse, StateUnreadable

T = TypeVar("T")

SEGMENT = 16 << 20
"""Bytes of a file of the log; PostgreSQL's usual size, which `initdb` is not told otherwise."""


class About(msgspec.Struct, frozen=True):
    """history.json. Times are Unix time."""

    system: str
    began: float


class Copy(msgspec.Struct, frozen=True):
    """copy.json: can be restored to any moment from `ended` on, with the log from its file `first` on."""

    name: str
    began: float
    ended: float
    size: int
    first: str


class History(NamedTuple):
    """One line of writes."""

    folder: Path
    about: About

    @property
    def wal(self) -> Path:
        """The log."""
        return self.folder / "wal"

    def copies(self) -> list[Copy]:
        """Those that are complete, the oldest first. Raises StateUnreadable."""
        found = (self.folder / "copies").glob("[0-9]*/copy.json")
        return sorted((_read(path, Copy) for path in found), key=lambda copy: copy.ended)

    def place(self, copy: str) -> Path:
        """Of a copy of this name."""
        return self.folder / "copies" / copy


def histories(folder: Path) -> list[History]:
    """All of them, the oldest first. Raises StateUnreadable."""
    files = sorted(folder.glob("[0-9]*/history.json"))
    return [History(path.parent, _read(path, About)) for path in files]


def current(folder: Path, system: str) -> History:
    """The one that a database of this number writes. It is made when the newest is another database's.

    By one process alone: the archive and who makes the copies both ask when they start.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        known = histories(folder)
        return known[-1] if known and known[-1].about.system == system else begin(folder, system)
    finally:
        os.close(descriptor)


def begin(folder: Path, system: str) -> History:
    """Another one, from now on."""
    number = max((int(each.folder.name) for each in histories(folder)), default=0) + 1
    made = folder / f"{number:04}"
    for part in ("wal", "copies"):
        (made / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    about = About(system, time.time())
    write(made / "history.json", about)
    return History(made, about)


def write(path: Path, value: msgspec.Struct) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(msgspec.json.encode(value))
    temporary.replace(path)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, OSError) as error:
        raise StateUnreadable(
            f"{path}: {error}", hint="this backup cannot be used; the others can"
        ) from error


def chosen(known: Sequence[History], moment: float | None) -> tuple[History, Copy]:
    """What to restore from: the line that was written at that moment, or the newest for the newest there is.

    Raises Misuse when no copy was complete by then.
    """
    lines = [each for each in known if moment is None or each.about.began <= moment]
    copies = lines[-1].copies() if lines else []
    before = [copy for copy in copies if moment is None or copy.ended <= moment]
    if before:
        return lines[-1], before[-1]
    first = next((copy.ended for each in lines[-1:] for copy in each.copies()), None)
    told = f"the first copy of that line was complete at {at(first)}" if first else "there is no copy of it"
    raise Misuse(f"nothing can be restored: {told}", hint="`outgrow backup list` shows what there is")


def spare(copies: Sequence[Copy], kept_since: float) -> list[Copy]:
    """Those that no moment since then needs: all before the newest that was complete by then."""
    before = [copy for copy in copies if copy.ended <= kept_since]
    return list(before[:-1])


def over(known: Sequence[History], kept_since: float) -> list[History]:
    """Lines that ended before: another began by then."""
    return [line for line, after in pairwise(known) if after.about.began <= kept_since]


def tidy(folder: Path, keep_s: float) -> Iterator[str]:
    """Remove what is not needed any more; tells what."""
    since = time.time() - keep_s
    known = histories(folder)
    for line in over(known, since):
        shutil.rmtree(line.folder)
        yield f"history {line.folder.name}"
    for copy in spare(known[-1].copies(), since) if known else ():
        (known[-1].place(copy.name) / "copy.json").unlink()  # first: half a copy is none
        shutil.rmtree(known[-1].place(copy.name))
        yield f"copy {copy.name}"


def segment(timeline: int, position: str) -> str:
    """The file of the log that holds a position like 0/3000028."""
    high, low = (int(part, 16) for part in position.split("/"))
    return f"{timeline:08X}{high:08X}{low // SEGMENT:08X}"


def at(moment: float) -> str:
    """As people read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))

"""The folder of the backups once more, in an S3-compatible store: what is lost with this machine is there.

folder ─► what is new, in an order in which what is there can be used ─► store
       ─► what is gone from it, and only from an archive that is surely the same

The newest file of the log is there every few seconds, as far as it is written.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from outgrow.backups import history
from outgrow.backups.s3 import Bucket
from outgrow.errors import FleetError, Misuse, OutgrowError

LOOK_S = 2.0
NEWEST_EVERY_S = 10.0
NEWEST = ".partial"
"""How pg_receivewal calls the file that it is still writing."""

KNOWN = re.compile(r"[0-9]+/(history\.json|wal/[0-9A-F]+[a-z.]*|copies/[0-9TZ]+/[\w.]+)")
"""What belongs to an archive. Nothing else is read, written or removed in a store."""


class File(NamedTuple):
    """`changed` is its time of modification, in nanoseconds."""

    size: int
    changed: int


def here(folder: Path) -> dict[str, File]:
    """What is complete in the folder: a copy that is being made is not."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if KNOWN.fullmatch(name):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # it has just got another name
            found[name] = File(stat.st_size, stat.st_mtime_ns)
    return found


def rank(path: str) -> tuple[int, str]:
    """Whose archive it is first of all; what a copy needs before that which says that it is complete."""
    last = ("history.json", "copy.json")
    kind = path.rpartition("/")[2]
    return (0 if kind == last[0] else 3 if kind == last[1] else 1 if "/wal/" in path else 2, path)


def lines(paths: Collection[str]) -> list[str]:
    """The lines of writes that have a history.json, the oldest first."""
    return sorted(
        (each for each in paths if each.endswith("/history.json")), key=lambda each: int(each.split("/")[0])
    )


class Mirror:
    """Of the copies in a folder, or of all else: a copy may take hours, and the log goes on meanwhile.

    `failure` is why the last turn failed.
    """

    def __init__(self, folder: Path, bucket: Bucket, *, copies: bool) -> None:
        self._folder, self._bucket, self._copies = folder, bucket, copies
        self._there: dict[str, File | None] | None = None
        self._complete = time.monotonic()
        self._newest_at = 0.0
        self.failure = ""

    @property
    def behind_s(self) -> float:
        """How long ago everything was there."""
        return time.monotonic() - self._complete

    async def run(self) -> None:
        """Until cancelled. Whatever goes wrong is told and tried again."""
        while True:
            try:
                await self.turn()
                self.failure = ""
            except (OutgrowError, OSError) as error:
                self.failure = str(error)
            await asyncio.sleep(LOOK_S)

    async def turn(self) -> None:
        """Bring what is new, remove what is gone. Raises FleetError."""
        began, local = time.monotonic(), await asyncio.to_thread(here, self._folder)
        if not lines(local):
            raise FleetError(f"{self._folder} has no backups: nothing is changed in the store")
        if self._there is None:
            self._there = await self._first_look(local)
        there = self._there
        local = {path: file for path, file in local.items() if self._is_mine(path)}
        new = [path for path in local if there.get(path) != local[path]]
        waits = began < self._newest_at + NEWEST_EVERY_S
        for path in sorted(new, key=rank):
            if not (waits and path.endswith(NEWEST)):
                await self._put(path, local[path], there)
        for path in sorted(there.keys() - local.keys(), key=rank, reverse=True):
            await self._bucket.remove(path)
            del there[path]
        if not (waits and any(path.endswith(NEWEST) for path in new)):
            self._complete = began

    async def _put(self, path: str, file: File, there: dict[str, File | None]) -> None:
        place = self._folder / path
        try:
            if path.endswith(NEWEST):
                self._newest_at = time.monotonic()
                # The file has its whole length from the beginning, with zeros where nothing is written yet.
                await self._bucket.put(path, (await asyncio.to_thread(place.read_bytes)).rstrip(b"\0"))
            else:
                await self._bucket.put(path, place)
        except FileNotFoundError:
            return  # it has just got another name, or was tidied away
        there[path] = file

    async def _first_look(self, local: Mapping[str, File]) -> dict[str, File | None]:
        found = {path: size for path, size in (await self._bucket.files()).items() if KNOWN.fullmatch(path)}
        both = [path for path in lines(found) if path in local]
        if lines(found) and not (both and both[-1] == lines(found)[-1]):
            raise FleetError(_OTHER, hint=_OTHER_HINT)
        for path in both:
            if await self._bucket.read(path) != await asyncio.to_thread((self._folder / path).read_bytes):
                raise FleetError(_OTHER, hint=_OTHER_HINT)
        same = {path for path in found if path in local and local[path].size == found[path]}
        return {path: local[path] if path in same else None for path in found if self._is_mine(path)}

    def _is_mine(self, path: str) -> bool:
        return ("/copies/" in path) == self._copies


_OTHER = "the store has another archive in this place, or more than the folder has: nothing is changed there"
_OTHER_HINT = "`outgrow backup fetch` brings it into an empty folder; or name another prefix"


async def fetch(bucket: Bucket, folder: Path) -> int:
    """Bring all of it into an empty folder; returns the bytes. Raises Misuse, FleetError."""
    if history.histories(folder):
        raise Misuse(f"{folder} has backups already", hint="move it away first, or name another directory")
    found = {path: size for path, size in (await bucket.files()).items() if KNOWN.fullmatch(path)}
    if not lines(found):
        raise Misuse(
            "the store has no backups in this place", hint="see mirror under [backup] in outgrow.toml"
        )
    # history.json last: with it a line counts.
    for path in [*sorted(found.keys() - set(lines(found)), key=rank), *lines(found)]:
        target = folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.new")
        await bucket.get(path, unfinished)
        if path.endswith(NEWEST):
            with unfinished.open("r+b") as file:
                file.truncate(history.SEGMENT)
        unfinished.replace(target)
    return sum(found.values())

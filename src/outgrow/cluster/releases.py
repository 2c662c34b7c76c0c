"""The code of an application as it ran: .outgrow/releases/N/, a copy of its folder for each release.

`up` runs the folder itself, and keeps a copy to go back to; what `outgrow deploy` brings runs from its copy,
so that edits in the folder concern nothing that runs. state.json has the numbers of those that have run,
the present one last.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from outgrow.engines import Placement
from outgrow.errors import FleetError
from outgrow.topology import Topology

KEPT = 5
BYTES_MAX = 256 * 1024 * 1024
"""Of a larger folder `up` makes no copy: whoever deploys has time for it, whoever starts has not."""

LEFT_OUT = frozenset(
    (".outgrow", ".venv", "venv", ".git", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache")
)


class _File(NamedTuple):
    """What tells two versions of a file apart without reading them."""

    path: str
    size: int
    changed: int
    mode: int


def number(place: Placement) -> int:
    """Of the next release."""
    return max((each for each, _ in _all(place)), default=0) + 1


def make(place: Placement, left_out: Collection[Path] = ()) -> int:
    """Keep the application's folder as it is now; returns the release's number.

    `left_out` are files and folders of data in it. Raises FleetError, and leaves nothing half then.
    """
    return _keep(place, place.application, left_out)


def again(place: Placement, release: int) -> int:
    """Keep a release once more, under the next number, which is returned. Raises FleetError likewise."""
    return _keep(place, place.releases / str(release), ())


def _keep(place: Placement, code: Path, left_out: Collection[Path]) -> int:
    found = number(place)
    unfinished, whole = place.releases / f"{found}.new", place.releases / str(found)
    skipped = {path.resolve() for path in left_out}
    try:
        place.releases.mkdir(mode=0o700, exist_ok=True)
        for old in place.releases.glob("*.new"):
            shutil.rmtree(old)
        shutil.copytree(
            code,
            unfinished,
            symlinks=True,
            ignore=lambda folder, names: [each for each in names if _skip(Path(folder, each), skipped)],
        )
        unfinished.rename(whole)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise FleetError(
            f"the application's code, {code}, cannot be copied to {whole}: {error}",
            hint="see whether its files can be read, and whether the disk is full",
        ) from error
    return found


def data(place: Placement, topology: Topology) -> tuple[Path, ...]:
    """What may be in the application's folder, and is no part of its code."""
    file = topology.database.file
    if file is None:
        return ()
    return tuple(place.application / f"{file}{suffix}" for suffix in ("", "-wal", "-shm"))


def current(place: Placement, line: tuple[int, ...], left_out: Collection[Path] = ()) -> tuple[int, ...]:
    """The releases when the folder itself runs now: a new one, unless the last is just that.

    A folder that is too large, or cannot be copied, is no release.
    """
    try:
        files = _files(place.application, left_out)
        if line and _files(place.releases / str(line[-1]), left_out) == files:
            return line
        if sum(file.size for file in files) <= BYTES_MAX:
            return added(line, make(place, left_out))
    except (FleetError, OSError):  # a start does not depend on it
        pass
    return ()


def added(line: tuple[int, ...], release: int) -> tuple[int, ...]:
    """The releases when this one runs now. One that has run before ends what came after it."""
    if release in line:
        return line[: line.index(release) + 1]
    return (*line, release)[-KEPT:]


def tidy(place: Placement, line: Collection[int], upto: int) -> None:
    """Remove what is not in the line. Newer ones than `upto` are being made for the next deploy."""
    for each, folder in _all(place):
        if each not in line and each <= upto:
            shutil.rmtree(folder, ignore_errors=True)


def _all(place: Placement) -> Iterator[tuple[int, Path]]:
    for folder in place.releases.glob("*"):
        if folder.name.isdigit():
            yield int(folder.name), folder


def _skip(path: Path, left_out: Collection[Path]) -> bool:
    """Sockets and devices too: they are no code, and cannot be copied."""
    if path.name in LEFT_OUT or path in left_out:
        return True
    mode = path.lstat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def _files(folder: Path, left_out: Collection[Path]) -> list[_File]:
    skipped, found = {path.resolve() for path in left_out}, []
    for root, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not _skip(Path(root, each), skipped)]
        for path in (Path(root, name) for name in names):
            if not _skip(path, skipped):
                told = path.lstat()
                place = str(path.relative_to(folder))
                found.append(_File(place, told.st_size, told.st_mtime_ns, told.st_mode))
    return sorted(found)

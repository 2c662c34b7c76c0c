"""A part of the runtime in a process of its own, in the application's directory, with its endpoints."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from outgrow.cli.application import STATE
from outgrow.errors import OutgrowError

_BLOCK = 4096
_STOPPED = (130, -2)
"""Exit codes of a process that Ctrl-C ended."""


class Told(msgspec.Struct):
    """The last word of a process that failed (runtime/failure.py)."""

    fatal: str
    hint: str = ""
    traceback: str = ""


class Ended(NamedTuple):
    """How it ended."""

    code: int
    told: Told | None


@contextmanager
def published(directory: Path) -> Iterator[Path]:
    """The endpoints of the application: the running fleet's, or without one those in outgrow.toml.

    Raises FleetNotRunning when the servers that outgrow.toml asks for would be run by a fleet.
    """
    path = directory / STATE / "endpoints.json"
    if path.exists():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="outgrow-") as folder:
        yield _from_topology(directory, Path(folder))


def run(
    module: str,
    arguments: Sequence[str],
    *,
    directory: Path,
    variables: dict[str, str],
    stdout: BinaryIO | None,
) -> Ended:
    """Run `python -m module`. What it writes passes through; Ctrl-C reaches it too and is waited for."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    held = _Passing(process.stderr)
    while True:
        try:
            held.pass_on()
            code = process.wait()
        except KeyboardInterrupt:
            continue  # the process has got it as well, and is closing its tiers
        break
    if code in _STOPPED:
        raise KeyboardInterrupt
    return Ended(code, held.told)


def require_done(ended: Ended, what: str) -> None:
    """Raises OutgrowError with what the process told if it failed."""
    if ended.code == 0:
        return
    if ended.told is None:
        raise OutgrowError(f"{what} ended with exit code {ended.code}", hint="what it wrote above says why")
    error = OutgrowError(ended.told.fatal, hint=ended.told.hint)
    error.exit_code = 2 if ended.code == 2 else 1
    raise error


class _Passing:
    """Standard error of the process, passed on as it comes, but for the JSON line of its failure."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._line = b""
        self.told: Told | None = None

    def pass_on(self) -> None:
        while block := os.read(self._source.fileno(), _BLOCK):
            *lines, rest = (self._line + block).split(b"\n")
            self._line = b""
            for line in lines:
                self._take(line + b"\n")
            if rest.startswith(b"{"):
                self._line = rest  # it may become that line
            else:
                _write(rest)
        _write(self._line)

    def _take(self, line: bytes) -> None:
        if line.startswith(b'{"fatal"'):
            try:
                self.told = msgspec.json.decode(line, type=Told)
                return
            except msgspec.DecodeError:
                pass
        _write(line)


def _write(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()

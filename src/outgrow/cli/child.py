"""A part of the runtime in a process of its own, in the application's directory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, BinaryIO

from outgrow.errors import OutgrowError, told

_BLOCK = 4096
_STOPPED = (130, -2)
"""Exit codes of a process that Ctrl-C ended."""


def run(
    module: str,
    arguments: Sequence[str] = (),
    *,
    directory: Path,
    variables: Mapping[str, str],
    heard: Callable[[str], None] | None = None,
) -> None:
    """Run `python -m module` to its end. Raises the OutgrowError that it told, or one with its exit code.

    What it writes passes through; with `heard` that gets its standard output, line by line. Ctrl-C
    reaches the process too and is waited for; KeyboardInterrupt follows.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        stdout=None if heard is None else subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    passing = _Passing(process.stderr)
    with _listening(process.stdout, heard):
        code = _until_end(process, passing)
    if code in _STOPPED:
        raise KeyboardInterrupt
    if code != 0:
        raise passing.error or OutgrowError(f"{_shown(module, arguments)} {_described(code)}")


def _until_end(process: subprocess.Popen[bytes], passing: _Passing) -> int:
    while True:
        with suppress(KeyboardInterrupt):  # the process has got it as well, and is closing its tiers
            passing.pass_on()
            return process.wait()


def _listening(
    stdout: IO[bytes] | None, heard: Callable[[str], None] | None
) -> _Listener | nullcontext[None]:
    return nullcontext() if stdout is None or heard is None else _Listener(stdout, heard)


def _shown(module: str, arguments: Sequence[str]) -> str:
    """ "app:seed" of the script runner, the module's own name else."""
    return arguments[0] if arguments else module


def _described(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


class _Listener:
    """Reads standard output beside standard error, so that neither can fill its pipe and block."""

    def __init__(self, source: IO[bytes], heard: Callable[[str], None]) -> None:
        self._source = source
        self._heard = heard
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join()

    def _read(self) -> None:
        for line in self._source:
            with suppress(OSError):  # our own reader is gone; the process must not wait for it
                self._heard(line.decode("utf-8", "replace").rstrip("\n"))


class _Passing:
    """Standard error of the process, passed on as it comes, but for the JSON line of its failure."""

    def __init__(self, source: BinaryIO | IO[bytes]) -> None:
        self._source = source
        self._line = b""
        self.error: OutgrowError | None = None

    def pass_on(self) -> None:
        """Until the process has closed it."""
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
        error = told(line.decode("utf-8", "replace")) if line.startswith(b"{") else None
        if error is None:
            _write(line)
        else:
            self.error = error


def _write(data: bytes) -> None:
    with suppress(OSError):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

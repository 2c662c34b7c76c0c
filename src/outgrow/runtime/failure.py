"""From a failure to one line that a parent process can read.

    {"fatal": "app.py, line 3: NameError: name 'x' is not defined", "hint": "...", "traceback": "..."}

The parent (supervisor, command line) shows `fatal` and `hint`; the exit code says whether to try again.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

import msgspec

from outgrow.errors import ApplicationBroken, OutgrowError

_MACHINERY = ("<frozen ", importlib.__file__, str(Path(__file__).with_name("loading.py")))
"""Files whose frames say nothing about the application: the import system, and what calls it."""


def tell(error: BaseException) -> None:
    """Write that one line to standard error."""
    sys.stdout.flush()
    os.write(2, msgspec.json.encode(describe(error)) + b"\n")


def describe(error: BaseException) -> dict[str, str]:
    """What the parent is told of a failure."""
    cause: BaseException | None
    if isinstance(error, OutgrowError):
        told = {"kind": type(error).__name__, "fatal": error.message, "hint": error.hint}
        cause = error.__cause__
    else:
        told = {"kind": ApplicationBroken.__name__, "fatal": where(error), "hint": ""}
        cause = error
    if cause is not None:
        lines = traceback.format_list(_frames(cause)) + traceback.format_exception_only(cause)
        told["traceback"] = "".join(lines)
    return told


def where(error: BaseException) -> str:
    """ "app.py, line 3: NameError: ...": the place in the application, as near as can be told."""
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}, line {error.lineno}: SyntaxError: {error.msg}"
    frames = _frames(error)
    return f"{_short(frames[-1].filename)}, line {frames[-1].lineno}: {what}" if frames else what


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames that are the application's."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_MACHINERY)
    ]


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

"""From "module:attribute" to the object, and from a failure to one line that a parent can read.

    {"fatal": "app.py, line 3: NameError: name 'x' is not defined", "hint": "...", "traceback": "..."}

The parent (supervisor, command line) shows `fatal` and `hint`; the exit code says whether to try again.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from outgrow.errors import ApplicationBroken, OutgrowError



def load(reference: str, *, key: str) -> Any:
    """The object that "package.module:attribute" names. `key` is where the reference was written.

    Raises ApplicationBroken when the module does not import or has no such attribute.
    """
    name, colon, attribute = reference.partition(":")
    if not name or not colon or not attribute:
        raise ApplicationBroken(
            f"{key} is {reference!r}, which is not of the form module:attribute",
            hint=f'say {key} = "app:app"',
        )
    found: Any = _import(name, key)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ApplicationBroken(
                f"{key} is {reference!r}, and {name} has no {part!r}", hint=_offer(found, name)
            ) from None
    return found


def _import(name: str, key: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (error.name == name or name.startswith(f"{error.name}.")):
            raise ApplicationBroken(
                f"{key} names the module {name!r}, and there is none in {os.getcwd()}",
                hint=f"correct {key}, or start in the application's directory",
            ) from None
        raise ApplicationBroken(_where(error), hint=_install(error)) from error
    except OutgrowError:
        raise
    except (Exception, SystemExit) as error:
        raise ApplicationBroken(_where(error), hint=f"{name} must import without an error") from error


def _install(error: ModuleNotFoundError) -> str:
    missing = (error.name or "").partition(".")[0]
    return f"install {missing!r} into the environment of {sys.executable}, or correct the import"


def _offer(found: object, name: str) -> str:
    callables = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
    own = [
        key for key in callables if getattr(getattr(found, key), "__module__", name) == name or key == "app"
    ]
    return f"it has: {', '.join((own or callables)[:8])}" if callables else "it is empty"


def _where(error: BaseException) -> str:
    """ "app.py, line 3: NameError: ...": the place in the application, as near as can be told."""
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}, line {error.lineno}: SyntaxError: {error.msg}"
    frames = _frames(error)
    return f"{_short(frames[-1].filename)}, line {frames[-1].lineno}: {what}" if frames else what


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames that are the application's: without the import system's and this file's."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ") and frame.filename not in (__file__, importlib.__file__)
    ]


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def describe(error: BaseException) -> dict[str, str]:
    """What the parent is told of a failure."""
    cause: BaseException | None
    if isinstance(error, OutgrowError):
        told = {"kind": type(error).__name__, "fatal": error.message, "hint": error.hint}
        cause = error.__cause__
    else:
        told = {"kind": ApplicationBroken.__name__, "fatal": _where(error), "hint": ""}
        cause = error
    if cause is not None:
        lines = traceback.format_list(_frames(cause)) + traceback.format_exception_only(cause)
        told["traceback"] = "".join(lines)
    return told


def tell(error: BaseException) -> None:
    """Write that one line to standard error."""
    sys.stdout.flush()
    os.write(2, msgspec.json.encode(describe(error)) + b"\n")

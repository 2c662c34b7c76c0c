"""From "module:attribute", as outgrow.toml says it, to the object."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from outgrow.errors import ApplicationBroken, OutgrowError
from outgrow.runtime.failure import where


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
        raise ApplicationBroken(where(error), hint=_install(error)) from error
    except OutgrowError:
        raise
    except (Exception, SystemExit) as error:
        raise ApplicationBroken(where(error), hint=f"{name} must import without an error") from error


def _install(error: ModuleNotFoundError) -> str:
    missing = (error.name or "").partition(".")[0]
    return f"install {missing!r} into the environment of {sys.executable}, or correct the import"


def _offer(found: object, name: str) -> str:
    callables = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
    own = [
        key for key in callables if getattr(getattr(found, key), "__module__", name) == name or key == "app"
    ]
    return f"it has: {', '.join((own or callables)[:8])}" if callables else "it is empty"

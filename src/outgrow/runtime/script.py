"""Run one function of the application with its tiers open: `python -m outgrow.runtime.script`.

    python -m outgrow.runtime.script conduit.seed:main [ARGUMENT ...]

calls `await main(og, ["ARGUMENT", ...])` inside `async with og`. Exit codes: 0; what the OutgrowError
says (1 or 2); 1 for any other exception; 78 when the function cannot be loaded; 130 after Ctrl-C. A
failure is told in one JSON line on standard error (see failure.py).
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from outgrow.errors import EXIT_TOLD, Misuse, OutgrowError
from outgrow.runtime.application import Outgrow
from outgrow.runtime.failure import tell
from outgrow.runtime.loading import load

INTERRUPTED = 130


def own_outgrow(function: Callable[..., Any], *others: object) -> Outgrow:
    """The Outgrow object that the function's module uses, so that both speak to the same open tiers.

    Then that of `others` (the application's module); where there is none, a new one. Raises Misuse
    when a module holds several.
    """
    for names in (getattr(function, "__globals__", {}), *(vars(other) for other in others)):
        found = {id(value): value for value in names.values() if isinstance(value, Outgrow)}
        if len(found) > 1:
            raise Misuse(
                f"{names.get('__name__')} holds several Outgrow objects", hint="keep one for an application"
            )
        if found:
            return next(iter(found.values()))
    return Outgrow()


async def run(function: Callable[..., Any], og: Outgrow, arguments: Sequence[str]) -> None:
    """Open the tiers, call the function, close them."""
    async with og:
        result = function(og, list(arguments))
        if inspect.isawaitable(result):
            await result


def main(arguments: Sequence[str]) -> int:
    """Load and run; returns the exit code."""
    if not arguments:
        tell(
            Misuse(
                "which function to run is missing", hint="python -m outgrow.runtime.script module:function"
            )
        )
        return Misuse.exit_code
    try:
        function = load(arguments[0], key="application.seed")
        others = _application_module(os.environ.get("OUTGROW_APP", ""))
    except OutgrowError as error:
        tell(error)
        return EXIT_TOLD
    try:
        asyncio.run(run(function, own_outgrow(function, *others), arguments[1:]))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutgrowError as error:
        tell(error)
        return error.exit_code
    except Exception as error:
        tell(error)
        return 1
    return 0


def _application_module(reference: str) -> tuple[object, ...]:
    if not reference:
        return ()
    load(reference, key="application.app")
    return (sys.modules[reference.partition(":")[0]],)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

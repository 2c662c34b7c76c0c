"""A program of ours that the fleet runs as a job, and what it tells the fleet when it fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from outgrow.errors import EXIT_TOLD, FleetError, OutgrowError, tell


def run(what: str, work: Callable[[], object], *expected: type[Exception]) -> int:
    """Do it; returns the exit code. What failed is told in one line on stderr, which the fleet reads.

    `what` is what an OSError, or another `expected` error, is about; any other is a bug, with its traceback.
    """
    about: tuple[type[Exception], ...] = (OSError, *expected)
    try:
        work()
    except OutgrowError as error:
        sys.stderr.write(tell(error) + "\n")
        return EXIT_TOLD
    except about as error:
        sys.stderr.write(tell(FleetError(f"{what}: {_said(error)}")) + "\n")
        return EXIT_TOLD
    return 0


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        at = f" ({error.filename})" if error.filename else ""
        return f"{os.strerror(error.errno)}{at}"
    return str(error)

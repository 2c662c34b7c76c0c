"""One call of the command line, from its arguments to its exit code. Nothing escapes as a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from outgrow.cli import failures
from outgrow.cli.console import hang_up
from outgrow.cli.group import root

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C ended: 128 + SIGINT."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        result = root.main(
            list(arguments), prog_name="outgrow", standalone_mode=False, color=_colour_wanted()
        )
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # `outgrow logs | head`: the reader has what it wanted
        hang_up()
        return 0
    except Exception as error:
        return failures.report(error, as_json=_json_wanted(arguments))
    return result if isinstance(result, int) else 0


def _colour_wanted() -> bool | None:
    """None lets click look whether the stream is a terminal (https://no-color.org for the rest)."""
    return False if os.environ.get("NO_COLOR") else None


def _json_wanted(arguments: Sequence[str]) -> bool:
    """Looked up by hand, because the arguments themselves may be what is wrong."""
    own = list(arguments)
    return "--json" in (own[: own.index("--")] if "--" in own else own)

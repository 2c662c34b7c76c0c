"""Arguments and options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


def directory(function: F) -> F:
    """[APP_DIR]: where the application lives."""
    return click.argument(
        "directory", metavar="[APP_DIR]", required=False, type=click.Path(path_type=Path, file_okay=True)
    )(function)


def directory_option(function: F) -> F:
    """--directory, for commands whose argument is something else."""
    return click.option(
        "-C",
        "--directory",
        metavar="APP_DIR",
        type=click.Path(path_type=Path),
        help="The application's directory, unless it is this one.",
    )(function)


def as_json(function: F) -> F:
    """--json: the result for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(function)


def stage(function: F) -> F:
    """--stage NAME|NUMBER."""
    return click.option(
        "--stage",
        metavar="NAME|NUMBER",
        help="A stage of the ladder in place of the one in outgrow.toml.",
        shell_complete=_stages,
    )(function)


def port(function: F) -> F:
    """--port N."""
    return click.option(
        "--port",
        metavar="N",
        type=click.IntRange(0, 65535),
        help="The port to serve at, in place of the one in outgrow.toml; 0 takes a free one.",
    )(function)


def _stages(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from outgrow import stages

    return [
        CompletionItem(each.name, help=each.title if each.built else f"{each.title} (not built yet)")
        for each in stages.LADDER
        if each.name.startswith(incomplete)
    ]

"""--report FILE: a report written into a file, whose ending chooses the form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from outgrow.errors import Misuse

if TYPE_CHECKING:
    from outgrow.cli.console import Console

F = TypeVar("F", bound=Callable[..., Any])

FORMS = (".html", ".json", ".txt")


def option(says: str) -> Callable[[F], F]:
    """The option, as `report_file`."""
    return click.option(
        "--report",
        "report_file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"Write a report, too: {says}.",
    )


def require_form(file: Path | None) -> None:
    """Before the work, not after it. Raises Misuse."""
    if file is None:
        return
    if file.suffix not in FORMS:
        raise Misuse(f"{file} has none of the forms {', '.join(FORMS)}", hint="its ending chooses the form")
    if not file.parent.is_dir():
        raise Misuse(f"{file.parent} is not a directory", hint="name one that exists")


def write(file: Path | None, report: Any, html: ModuleType, text: ModuleType, console: Console) -> None:
    """`html` and `text` are the modules that make these forms, each with a function of its own name."""
    if file is None:
        return
    if file.suffix == ".html":
        form = html.html(report)
    elif file.suffix == ".txt":
        form = f"{text.text(report)}\n"
    else:
        form = f"{msgspec.json.encode(report).decode()}\n"
    file.write_text(form, encoding="utf-8")
    console.note(f"report written to {file}")

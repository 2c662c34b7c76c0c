"""`outgrow new`: a small application that runs."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from outgrow.cli import options
from outgrow.cli.console import Console, good
from outgrow.cli.formatting import Command
from outgrow.errors import Misuse, OutgrowError

NAME = "application-name"
"""What the template's files say in place of the application's name."""

RENAMED = {"gitignore": ".gitignore"}
"""Files that tools would obey inside Outgrow's own tree if they had their real names there."""

_KEPT = {".git", ".gitignore", "LICENSE", "README.md"}
"""What a directory may already hold: a repository that was just made."""


@click.command(cls=Command)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@options.as_json
def command(directory: Path, as_json: bool) -> None:
    """Make a small application in DIR: it runs as it is, and its comments say how to go on."""
    _require_free(directory)
    template = resources.files("outgrow.cli") / "template"
    try:
        files = _write(template, directory, name_of(directory.resolve().name))
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutgrowError(
            f"{directory} cannot be made: {reason}", hint="name a place that you may write to"
        ) from error
    shown = str(directory)
    Console(as_json=as_json).result(
        {"directory": str(directory.resolve()), "files": files},
        f"{good('made')} {shown}: {', '.join(files)}\n\nnext:  outgrow up {shown}",
    )


def name_of(directory: str) -> str:
    """The application's name: a database and a role are called so, hence only a-z, 0-9 and _."""
    name = re.sub(r"[^a-z0-9]+", "_", directory.lower()).strip("_")
    if not name or not name[0].isalpha():
        name = f"app_{name}".rstrip("_")
    return name[:40]


def _require_free(directory: Path) -> None:
    if directory.is_file():
        raise Misuse(f"{directory} is a file", hint="name a directory that does not exist yet")
    taken = (
        sorted(each.name for each in directory.iterdir() if each.name not in _KEPT)
        if directory.is_dir()
        else []
    )
    if taken:
        raise Misuse(
            f"{directory} is not empty: it holds {', '.join(taken[:5])}",
            hint="name a directory that does not exist yet",
        )


def _write(source: Traversable, target: Path, name: str, below: str = "") -> list[str]:
    """Copy the template and return the paths of what was written. A file that exists stays as it is."""
    target.mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    for each in sorted(source.iterdir(), key=lambda entry: entry.name):
        file_name = RENAMED.get(each.name, each.name)
        path = f"{below}{file_name}"
        if each.is_dir():
            if file_name != "__pycache__":
                written += _write(each, target / file_name, name, f"{path}/")
        elif not (target / file_name).exists():
            (target / file_name).write_text(each.read_text("utf-8").replace(NAME, name), "utf-8")
            written.append(path)
    return written

"""`outgrow restore`: the database as it was at a moment."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from pathlib import Path

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console, dim, good
from outgrow.cli.formatting import Command
from outgrow.errors import Misuse


@click.command(cls=Command)
@click.option(
    "--to", "moment", metavar="TIME", required=True, help='Such as 2026-03-01T14:30:00, or "latest".'
)
@options.directory_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def command(moment: str, directory: Path | None, yes: bool, as_json: bool) -> None:
    """Put the database of a stopped fleet back to how it was at TIME (local, unless it names a zone).

    What was written afterwards is not in it any more. The data of now is kept beside it, and the backups are:
    another TIME can be restored afterwards.
    """
    from outgrow.backups import restoring

    where = application.directory_with_topology(directory)
    console = Console(as_json=as_json)
    wanted = parsed(moment)
    if not yes:
        _ask(where, moment, console)
    began = time.monotonic()
    topology = application.topology_of_data(where)
    done = asyncio.run(restoring.restore(where, topology, wanted, tell=console.note))
    took = time.monotonic() - began
    aside = str(done.aside) if done.aside is not None else None
    document = {
        "event": "ended",
        "copy": done.copy,
        "last": done.last,
        "aside": aside,
        "seconds": round(took, 3),
    }
    lines = [
        f"{good('✓')} restored {dim(f'after {took:.1f} s')}; the last transaction was at {done.last or '–'}"
    ]
    if aside is not None:
        lines.append(dim(f"  the data of before is in {aside}"))
    lines.append("  start it with `outgrow up`")
    console.result(document, "\n".join(lines))


def parsed(moment: str) -> float | None:
    """Unix time; None for "latest". Raises Misuse."""
    if moment == "latest":
        return None
    try:
        found = datetime.fromisoformat(moment).timestamp()
    except ValueError:
        raise Misuse(
            f"{moment!r} is no time",
            hint='2026-03-01T14:30:00, with a zone (+02:00, Z) or without; or "latest"',
        ) from None
    if found > time.time():
        raise Misuse(f"{moment} has not come yet", hint='"latest" is the newest that there is')
    return found


def _ask(directory: Path, moment: str, console: Console) -> None:
    if console.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Misuse("this replaces the database, and nobody can be asked", hint="say --yes")
    click.confirm(f"Replace the database in {directory} by how it was at {moment}?", abort=True)

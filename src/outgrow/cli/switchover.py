"""`outgrow switchover`: another node of the database becomes the primary, as planned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.stopping import until_stopped


@click.command(cls=Command)
@click.argument("node", metavar="[NODE]", required=False)
@options.directory_option
@options.as_json
def command(node: str | None, directory: Path | None, as_json: bool) -> None:
    """Make NODE, else the most advanced replica, the primary while the application serves.

    Writes are held, for less than a second as a rule; none is lost, and no request fails. The old primary
    stays as a replica. For its maintenance, or to have it back where it was.
    """
    from outgrow.growth import primary

    where = application.fleet_directory(directory)
    change = asyncio.run(until_stopped(primary.switchover(where, node)))
    text = (
        f"{good('✓')} {strong(change.after)} is the primary, after {change.before}\n"
        f"  writes were held for {change.seconds:.2f} s"
    )
    Console(as_json=as_json).result(change._asdict(), text)

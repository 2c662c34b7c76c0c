"""`outgrow rebuild`: a replica whose data is of no use copies the database anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.stopping import until_stopped


@click.command(cls=Command)
@click.argument("node", metavar="NODE")
@options.directory_option
@options.as_json
def command(node: str, directory: Path | None, as_json: bool) -> None:
    """Have the replica NODE throw its data away and copy all of it from the primary.

    For one that does not start any more, or shows what it should not. The application serves meanwhile.
    The primary itself is not rebuilt: `outgrow switchover` makes it a replica first.
    """
    from outgrow.growth import primary

    where = application.fleet_directory(directory)
    seconds = asyncio.run(until_stopped(primary.rebuild(where, node)))
    text = f"{good('✓')} {strong(node)} has copied the database anew and follows, after {seconds:.1f} s"
    Console(as_json=as_json).result({"node": node, "seconds": seconds}, text)

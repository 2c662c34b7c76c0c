"""`outgrow pause`: no node of the database takes over by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console, good
from outgrow.cli.formatting import Command
from outgrow.cli.stopping import until_stopped


@click.command(cls=Command)
@options.directory
@options.as_json
def command(directory: Path | None, as_json: bool) -> None:
    """Stop the automatic failover of the database, for maintenance, until `outgrow resume`.

    The nodes go on as they are. One that ends meanwhile stays away until then, and nobody takes the place
    of the primary.
    """
    from outgrow.growth import primary

    where = application.fleet_directory(directory)
    asyncio.run(until_stopped(primary.pause(where, paused=True)))
    text = f"{good('✓')} no failover until `outgrow resume`"
    Console(as_json=as_json).result({"paused": True}, text)

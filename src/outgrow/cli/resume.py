"""`outgrow resume`: the nodes of the database take over by themselves again."""

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
    """End what `outgrow pause` has begun: a primary that is lost is replaced again."""
    from outgrow.growth import primary

    where = application.fleet_directory(directory)
    asyncio.run(until_stopped(primary.pause(where, paused=False)))
    text = f"{good('✓')} a lost primary is replaced again"
    Console(as_json=as_json).result({"paused": False}, text)

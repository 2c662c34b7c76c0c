"""`outgrow failover`: the primary is given up, whatever it does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.stopping import until_stopped


@click.command(cls=Command)
@options.directory
@options.as_json
def command(directory: Path | None, as_json: bool) -> None:
    """End the host of the primary at once; another node takes over.

    For a primary that hangs. Requests under way at it fail, and with replication = "async" what has not
    reached a replica is lost: where it still works, `outgrow switchover` loses nothing. The host is
    started again and follows the new primary.
    """
    from outgrow.growth import primary

    where = application.fleet_directory(directory)
    change = asyncio.run(until_stopped(primary.failover(where)))
    text = (
        f"{good('✓')} {strong(change.after)} is the primary, after {change.before}\n"
        f"  no writes for {change.seconds:.2f} s"
    )
    Console(as_json=as_json).result(change._asdict(), text)

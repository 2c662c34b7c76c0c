"""`outgrow down`: stop the fleet of a directory, also one that runs in the background or has crashed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console, good
from outgrow.cli.formatting import Command
from outgrow.cli.report import Report


@click.command(cls=Command)
@options.directory
@options.as_json
def command(directory: Path | None, as_json: bool) -> None:
    """Stop what runs in APP_DIR, and end what a crash has left behind. Its data stays.

    Exit code 0 also when nothing ran: afterwards nothing runs.
    """
    where = application.fleet_directory(directory)
    console = Console(as_json=as_json)
    stopped = asyncio.run(_stop(where, console))
    text = f"{good('stopped')}; the data is kept" if stopped else f"no fleet is running in {where}"
    console.result({"stopped": stopped, "directory": str(where)}, text)


async def _stop(directory: Path, console: Console) -> bool:
    from outgrow import cluster
    from outgrow.chaos.faults.left import Left

    Left(directory).wake()  # what a drill that was killed has stopped could not end gently
    report = Report(console, began=time.monotonic())
    try:
        return await cluster.down(directory, tell=(lambda change: None) if console.as_json else report.change)
    finally:
        report.close()

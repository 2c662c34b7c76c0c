"""`outgrow grow`: to a further stage, live."""

from __future__ import annotations

from pathlib import Path

import click

from outgrow.cli import application, moving, options
from outgrow.cli.console import Console
from outgrow.cli.formatting import Command
from outgrow.errors import Misuse


@click.command(cls=Command)
@click.argument("stage", metavar="[STAGE]", required=False)
@options.directory_option
@click.option("--plan", is_flag=True, help="Show the steps, and do nothing.")
@click.option("--resume", is_flag=True, help="Finish a growth that was cut off.")
@click.option("--undo", is_flag=True, help="Take back a growth that was cut off.")
@options.as_json
def command(
    stage: str | None, directory: Path | None, plan: bool, resume: bool, undo: bool, as_json: bool
) -> None:
    """Move the running application to STAGE while it serves.

    Every step can be cut off at any moment: the application goes on from one consistent database, and
    the same command again, --resume or --undo goes on from the journal.
    """
    where = application.directory_with_topology(directory)
    console = Console(as_json=as_json)
    if sum((stage is not None, resume, undo)) != 1:
        raise Misuse("say where to: a stage, --resume or --undo", hint="outgrow grow separate-database")
    if stage is None:
        moving.finish(where, console, forward=resume)
        return
    from outgrow import stages

    name = stages.find(stage).name
    if plan:
        moving.show(where, name, console)
    else:
        moving.go(where, name, console)

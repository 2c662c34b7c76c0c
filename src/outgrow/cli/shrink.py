"""`outgrow shrink`: back to an earlier stage, live."""

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
@options.as_json
def command(stage: str | None, directory: Path | None, plan: bool, as_json: bool) -> None:
    """Move the running application back to STAGE (the one before, if not said) while it serves.

    Everything that was written meanwhile comes along.
    """
    from outgrow import stages

    where = application.directory_with_topology(directory)
    console = Console(as_json=as_json)
    back = moving.goes_back(where)
    if not plan and back and (stage is None or stages.find(stage).name == back):
        moving.finish(where, console, forward=True)
        return
    now = stages.find(moving.stage_now(where)[0])
    if stage is None and now.number == 1:
        raise Misuse("the application is at the first stage already")
    wanted = stages.find(stage if stage is not None else moving.stage_before(where, now.number))
    if wanted.number >= now.number:
        raise Misuse(f"{wanted.name} is not before {now.name}", hint=f"`outgrow grow {wanted.name}`")
    if plan:
        moving.show(where, wanted.name, console)
    else:
        moving.go(where, wanted.name, console)

"""`outgrow migrate`: bring the database to the newest migration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, child, options
from outgrow.cli.console import Console, good
from outgrow.cli.formatting import Command

if TYPE_CHECKING:
    from outgrow.topology.model import Topology

_STEP = "migration "
"""How the runtime's line of one step begins: "migration 0001: notes"."""


@click.command(cls=Command)
@options.directory
@options.as_json
def command(directory: Path | None, as_json: bool) -> None:
    """Bring the database of APP_DIR to the newest migration. All new steps are applied, or none.

    `outgrow up` does the same before it starts the application. It works on the running fleet, or
    without one on the SQLite file or on the server that [database] names.
    """
    from outgrow.cli import fleet

    where = application.directory_with_topology(directory)
    topology = fleet.topology(where)
    console = Console(as_json=as_json)
    steps = run(topology, where, console)
    verdict = f"{len(steps)} applied" if steps else "nothing to do: the database is at the newest migration"
    console.result({"applied": [_facts(step) for step in steps]}, good(verdict))


def run(topology: Topology, directory: Path, console: Console) -> list[str]:
    """Migrate, telling each step when it is done; returns the steps as "0001: notes"."""
    from outgrow.cli import fleet

    steps: list[str] = []

    def heard(line: str) -> None:
        if line.startswith(_STEP):
            steps.append(line.removeprefix(_STEP))
        console.note(line)

    with fleet.environment(topology, directory) as variables:
        child.run("outgrow.runtime.database.migrate", directory=directory, variables=variables, heard=heard)
    return steps


def _facts(step: str) -> dict[str, str]:
    revision, _, title = step.partition(": ")
    return {"revision": revision, "title": title}

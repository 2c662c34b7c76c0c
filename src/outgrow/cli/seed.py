"""`outgrow seed`: fill the application with data, by its own function."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, child, migrate, options, units
from outgrow.cli.console import Console, good
from outgrow.cli.formatting import Command
from outgrow.errors import Misuse, OutgrowError

if TYPE_CHECKING:
    from outgrow.topology.model import Topology


class SeedCommand(Command):
    """Everything after "--" belongs to the seed function, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is after "--" away before click reads it as APP_DIR."""
        own = args[: args.index("--")] if "--" in args else args
        ctx.meta[__name__] = tuple(args[len(own) + 1 :])
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Say so in the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- ARGUMENT...]"]


@click.command(cls=SeedCommand)
@options.directory
@options.as_json
@click.pass_context
def command(ctx: click.Context, directory: Path | None, as_json: bool) -> None:
    """Fill the application in APP_DIR with data: application.seed in outgrow.toml names the function.

    It is called as `await function(og, [ARGUMENT, ...])`. It works on the running fleet, or without
    one on the SQLite file or on the server that [database] names, which is migrated first. The caches of a
    running fleet forget what they have of before.
    """
    from outgrow.cli import fleet

    where = application.directory_with_topology(directory)
    topology = fleet.topology(where)
    function = _function(topology)
    console = Console(as_json=as_json)
    began = time.monotonic()
    _migrate_unless_running(topology, where, console)
    console.note(f"seeding {topology.application.name} with {function}")
    with fleet.environment(topology, where) as variables:
        child.run(
            "outgrow.runtime.script",
            [function, *ctx.meta[__name__]],
            directory=where,
            variables=variables,
            # Standard output carries the JSON alone: what the function prints goes beside it.
            heard=(lambda line: click.echo(line, err=True)) if as_json else None,
        )
    _forget_what_was_before(where, console)
    seconds = time.monotonic() - began
    console.result(
        {"seed": function, "arguments": ctx.meta[__name__], "seconds": round(seconds, 3)},
        f"{good('seeded')} in {units.span(seconds)}",
    )


def _forget_what_was_before(directory: Path, console: Console) -> None:
    """The running application's caches have not heard of what was put in beside them."""
    from outgrow import cluster
    from outgrow.growth.flush import flush

    if cluster.running(directory):
        try:
            asyncio.run(flush(directory, ()))
        except OutgrowError as error:
            console.note(f"the caches may have what was before: {error.message}")


def _function(topology: Topology) -> str:
    if topology.application.seed is None:
        raise Misuse(
            f"{application.FILE} names no seed function",
            hint='write seed = "app:seed" under [application]; it is called as `await seed(og, arguments)`',
        )
    return topology.application.seed


def _migrate_unless_running(topology: Topology, directory: Path, console: Console) -> None:
    """A fleet has run the migrations when it started."""
    from outgrow import cluster

    if not cluster.running(directory):
        migrate.run(topology, directory, console)

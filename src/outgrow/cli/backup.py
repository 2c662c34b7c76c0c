"""`outgrow backup`: copies of the database, and what there is of them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console, dim, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.table import table

if TYPE_CHECKING:
    from outgrow.topology.model import Topology


@click.command(cls=Command)
@click.argument("what", type=click.Choice(["now", "list", "fetch"]), default="list")
@options.directory_option
@options.as_json
def command(what: str, directory: Path | None, as_json: bool) -> None:
    """Copy the whole database NOW, LIST what can be restored, or FETCH what the mirror has.

    A fleet with [backup] directory in outgrow.toml makes copies by itself, and keeps every write since.
    """
    where = application.directory_with_topology(directory)
    console = Console(as_json=as_json)
    topology = application.topology_of_data(where)
    if what == "now":
        _now(where, topology, console)
    elif what == "fetch":
        _fetch(where, topology, console)
    else:
        _list(where, topology, console)


def _now(directory: Path, topology: Topology, console: Console) -> None:
    from outgrow.backups import now

    began = time.monotonic()
    copy = now.take(directory, topology)
    took = time.monotonic() - began
    document = {"event": "ended", "copy": copy, "seconds": round(took, 3)}
    size = f"{copy.size / 1e6:,.1f} MB, read again and right"
    console.result(document, f"{good('✓')} copy {strong(copy.name)} {dim(f'after {took:.1f} s, {size}')}")


def _fetch(directory: Path, topology: Topology, console: Console) -> None:
    from outgrow.backups import now

    began = time.monotonic()
    size = asyncio.run(now.fetch(directory, topology))
    took = time.monotonic() - began
    document = {"event": "ended", "bytes": size, "seconds": round(took, 3)}
    text = (
        f"{good('✓')} {size / 1e6:,.1f} MB {dim(f'after {took:.1f} s')}\n  `outgrow restore` puts them back"
    )
    console.result(document, text)


def _list(directory: Path, topology: Topology, console: Console) -> None:
    from outgrow.backups import history, now

    lines = [(line, line.copies()) for line in now.there(directory, topology)]
    rows = [
        (line.folder.name, copy.name, history.at(copy.ended), f"{copy.size / 1e6:,.1f} MB")
        for line, copies in lines
        for copy in copies
    ]
    document = {
        "lines": [
            {"name": line.folder.name, "began": line.about.began, "copies": copies} for line, copies in lines
        ]
    }
    text = table(("line", "copy", "restores from", "size"), rows, right=(3,)) if rows else "no copy yet"
    console.result(document, text)

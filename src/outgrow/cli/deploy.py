"""`outgrow deploy`: new code, server by server, while the application serves."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, options
from outgrow.cli.changing import Changes
from outgrow.cli.console import Console, dim, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.stopping import until_stopped

if TYPE_CHECKING:
    from outgrow.topology.model import Topology


@click.command(cls=Command)
@options.directory
@click.option("--rollback", is_flag=True, help="Go back to the release before.")
@options.as_json
def command(directory: Path | None, rollback: bool, as_json: bool) -> None:
    """Replace the running application by what its folder holds now.

    The folder is kept as a release, with its outgrow.toml. Its migrations run; then each server is replaced:
    the new one starts beside the old one, must become ready and healthy, and takes over its address. The
    first new server is watched while it shares the old one's requests. If the new version is not good
    enough it goes again, and the old one serves on: exit code 1. No request fails either way, but those
    that the first new server has answered with an error itself.
    """
    from outgrow import cluster
    from outgrow.growth import deploy as deploys

    where = application.directory_with_topology(directory)
    console = Console(as_json=as_json)
    stage = asyncio.run(cluster.status(where, measured=False)).stage

    def read(folder: Path) -> Topology:
        return application.topology(folder, stage=stage)

    began, changes = time.monotonic(), Changes(console)
    try:
        if rollback:
            work = deploys.rollback(where, read, tell=changes.tell)
        else:
            work = deploys.deploy(where, read(where), tell=changes.tell)
        release = asyncio.run(until_stopped(work))
    finally:
        changes.close()
    took = time.monotonic() - began
    document = {"event": "ended", "release": release, "seconds": round(took, 3)}
    console.result(document, f"{good('✓')} release {strong(str(release))} runs {dim(f'after {took:.1f} s')}")

"""`outgrow scale`: more or fewer application servers, processes and cores, live."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, options
from outgrow.cli.changing import Changes
from outgrow.cli.console import Console, dim, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.stopping import until_stopped
from outgrow.cli.table import table
from outgrow.errors import Misuse

if TYPE_CHECKING:
    from outgrow.cluster import Status
    from outgrow.growth.settings import Value
    from outgrow.topology.model import Topology

KEYS = {
    "app": "application.servers",
    "app.workers": "application.workers",
    "app.cpu": "application.cpu",
    "database.replicas": "database.replicas",
    **{f"autoscale.{key}": f"autoscale.{key}" for key in ("minimum", "maximum", "cpu", "in_flight")},
}
_FIGURE = re.compile(r"([a-z][a-z0-9_.-]*)=(\d+(?:\.\d+)?)")


@click.command(cls=Command)
@click.argument("figures", metavar="[FIGURE...]", nargs=-1)
@options.directory_option
@options.as_json
def command(figures: tuple[str, ...], directory: Path | None, as_json: bool) -> None:
    """Change how much the running application has, while it serves.

    A FIGURE is app=N (servers), app.workers=N (processes on each), app.cpu=X (cores of each server),
    POOL=N for another pool of the balancer, database.replicas=N, or autoscale.cpu=X and its like, with which
    servers come and go by themselves. Servers get requests when they are ready; those that go finish what
    they have begun. It is written into outgrow.toml, too. Without a figure the present ones are shown.
    """
    where = application.directory_with_topology(directory)
    console = Console(as_json=as_json)
    status = _status(where)
    topology = application.topology(where, stage=status.stage)
    if figures:
        _scale(where, parsed(figures, topology), status, console)
    else:
        _show(topology, status, console)


def parsed(figures: tuple[str, ...], topology: Topology) -> dict[str, Value]:
    """Keys of outgrow.toml and their values. Raises Misuse."""
    keys = KEYS | {pool: f"balancer.pools.{pool}" for pool in topology.balancer.pools}
    found: dict[str, Value] = {}
    for figure in figures:
        match = _FIGURE.fullmatch(figure)
        if match is None or match[1] not in keys:
            raise Misuse(f"{figure!r} is nothing to scale", hint=f"NAME=NUMBER, of: {', '.join(keys)}")
        if keys[match[1]] in found:
            raise Misuse(f"{match[1]} is said twice")
        number = float(match[2])
        found[keys[match[1]]] = int(number) if number.is_integer() else number
    return found


def _status(directory: Path) -> Status:
    from outgrow import cluster

    return asyncio.run(cluster.status(directory, measured=False))


def _show(topology: Topology, status: Status, console: Console) -> None:
    settings = topology.application
    cpu = settings.cpu or topology.fleet.host_cpu
    pools = {"app": settings.count, **topology.balancer.pools}
    document = {"pools": pools, "workers": settings.workers, "cpu": cpu, "running": _running(status)}
    rows = [
        (pool, str(count), str(settings.workers), f"{cpu:g}" if cpu else "no limit")
        for pool, count in pools.items()
    ]
    text = table(("pool", "servers", "workers each", "cores each"), rows, right=(1, 2, 3))
    console.result(document, f"{text}\n\n{dim('ready:')} {', '.join(_running(status)) or 'none'}")


def _running(status: Status) -> list[str]:
    return [node.name for node in status.nodes if node.tier == "application" and node.state == "ready"]


def _scale(directory: Path, figures: dict[str, Value], status: Status, console: Console) -> None:
    from outgrow.growth.scale import scale

    before, began = _running(status), time.monotonic()
    changes = Changes(console)
    try:
        asyncio.run(until_stopped(scale(directory, figures, status.stage, tell=changes.tell)))
    finally:
        changes.close()
    now = _status(directory)
    added = [name for name in _running(now) if name not in before]
    gone = [name for name in before if name not in _running(now)]
    took = time.monotonic() - began
    document = {"event": "ended", "figures": figures, "added": added, "gone": gone, "seconds": round(took, 3)}
    said = "   ".join([*(f"+ {name}" for name in added), *(f"- {name}" for name in gone)])
    told = ", ".join(
        f"{key} = {value:g}" if not isinstance(value, str) else value for key, value in figures.items()
    )
    console.result(
        document, f"{good('✓')} {strong(told)} {dim(f'after {took:.1f} s')}  {said or 'as it was'}"
    )

"""`outgrow status`: what runs, where, since when, and what it uses."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, options, units
from outgrow.cli.console import Console, bad, dim, doubtful, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.table import table

if TYPE_CHECKING:
    from outgrow.cluster import NodeStatus, Status
    from outgrow.dashboard.snapshot import Summary

_HEADINGS = ("node", "state", "since", "restarts", "cpu", "memory", "pid", "address")
_FIGURES = (2, 3, 4, 5, 6)
_COLOURS = {"ready": good, "failed": bad}


@click.command(cls=Command)
@options.directory
@options.as_json
def command(directory: Path | None, as_json: bool) -> int:
    """Show what runs in APP_DIR.

    Exit code 0 if everything is well, 1 if a node has failed or nothing runs. CPU is the share of one
    core since the last time somebody asked, memory what the node's processes use alone plus their part
    of what they share. Where the dashboard runs, its figures of the last five seconds are shown as well.
    """
    import msgspec

    from outgrow import cluster
    from outgrow.dashboard import client

    status = asyncio.run(cluster.status(application.fleet_directory(directory)))
    summary = client.summary(status.dashboard) if status.dashboard else None
    document = {**msgspec.structs.asdict(status), "now": summary}
    Console(as_json=as_json).result(document, text(status, summary))
    return 1 if any(node.state == "failed" for node in status.nodes) else 0


def text(status: Status, summary: Summary | None = None) -> str:
    """The fleet for people: jobs that are done are left out, a failed node says why."""
    from outgrow import stages

    number = stages.find(status.stage).number
    runs = units.span(time.time() - status.since)
    head = f"{strong(status.application)} runs at stage {number}, {status.stage}, for {runs}"
    nodes = [node for node in status.nodes if node.kind == "service" or node.state != "done"]
    rows = table(_HEADINGS, [_row(node) for node in nodes], right=_FIGURES)
    reasons = [f"\n{bad(node.name)} {node.text}" for node in nodes if node.state == "failed" and node.text]
    supervisor = dim(f"supervisor {status.supervisor_pid}, epoch {status.epoch}")
    page = f"\n{click.style(status.dashboard, fg='cyan')}   {dim('dashboard')}" if status.dashboard else ""
    now = f"\n{_now(summary)}" if summary is not None else ""
    urls = f"{click.style(status.url, fg='cyan')}   {supervisor}{page}"
    warnings = "".join(f"\n{doubtful('warning:')} {warning}" for warning in status.warnings)
    return f"{head}\n{urls}{now}\n\n{rows}{''.join(reasons)}{warnings}"


def _now(summary: Summary) -> str:
    """The traffic of the last seconds, and what is wrong."""
    traffic = summary.traffic
    took = [f"{name} {value:.3g} ms" for name, value in (("p50", traffic.p50), ("p99", traffic.p99)) if value]
    errors = bad(f"{traffic.errors:.3g} errors/s") if traffic.errors else dim("no errors")
    figures = f"{strong(f'{traffic.rate:,.0f}')} requests/s   {'   '.join([*took, errors])}"
    return "\n".join([figures, *(doubtful(reason) for reason in summary.health.reasons)])


def _row(node: NodeStatus) -> tuple[str, ...]:
    colour = _COLOURS.get(node.state, doubtful)
    return (
        node.name,
        colour(node.state),
        units.span(max(0.0, time.time() - node.since)),
        str(node.restarts),
        "" if node.cpu is None else f"{node.cpu:.0%}",
        "" if node.memory is None else units.size(node.memory),
        "" if node.pid is None else str(node.pid),
        node.address or "",
    )

"""`outgrow status`: what runs, where, since when, and what it uses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outgrow.cli import application, options, units
from outgrow.cli.console import Console, bad, dim, doubtful, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.table import table

if TYPE_CHECKING:
    from outgrow.cluster import NodeStatus, Status
    from outgrow.cluster.status import Autoscaling, Backups
    from outgrow.dashboard.snapshot import Server, Summary
    from outgrow.growth.unfinished import Unfinished

_HEADINGS = ("node", "state", "since", "restarts", "cpu", "memory", "pid", "address")
_FIGURES = (2, 3, 4, 5, 6)
_FORMS: dict[str, tuple[str, Callable[[float], str]]] = {
    "cpu": ("cpu", "{:.0%}".format),
    "in_flight": ("in flight", "{:.3g}".format),
    "p95": ("p95", lambda seconds: f"{seconds * 1000:.3g} ms"),
}
"""A target of the autoscaler, as it is called and written."""

_SERVER_HEADINGS = ("server", "share", "requests/s", "p50", "p95", "p99", "errors/s", "in flight", "balancer")
_COLOURS = {"ready": good, "healthy": good, "failed": bad, "unhealthy": bad, "ejected": bad}


@click.command(cls=Command)
@options.directory
@options.as_json
def command(directory: Path | None, as_json: bool) -> int:
    """Show what runs in APP_DIR.

    Exit code 0 if everything is well, 1 if a node has failed or nothing runs. CPU is the share of one
    core since the last time somebody asked, memory what the node's processes use alone plus their part
    of what they share. Where the dashboard runs, its figures of the last five seconds are shown as well,
    with several servers those of each.
    A growth that is not finished is shown with its step and with the commands that end it.
    """
    from outgrow import cluster
    from outgrow.dashboard import client
    from outgrow.growth.unfinished import unfinished

    where = application.fleet_directory(directory)
    status = asyncio.run(cluster.status(where))
    summary = client.summary(status.dashboard) if status.dashboard else None
    growth = unfinished(where)
    Console(as_json=as_json).result(_document(status, summary, growth), text(status, summary, growth=growth))
    return 1 if any(node.state == "failed" for node in status.nodes) else 0


def _document(status: Status, summary: Summary | None, growth: Unfinished | None) -> dict[str, Any]:
    import msgspec

    told = None if growth is None else {**msgspec.structs.asdict(growth), "ways": growth.ways}
    return {**msgspec.structs.asdict(status), "now": summary, "growth": told}


def text(status: Status, summary: Summary | None = None, *, growth: Unfinished | None = None) -> str:
    """The fleet for people: jobs that are done are left out, a failed node says why."""
    from outgrow import stages

    number = stages.find(status.stage).number
    runs = units.span(time.time() - status.since)
    head = f"{strong(status.application)} runs at stage {number}, {status.stage}, for {runs}"
    nodes = [node for node in status.nodes if node.kind == "service" or node.state != "done"]
    scaling = f"\n{_autoscale(status.autoscale)}" if status.autoscale is not None else ""
    backups = f"\n{_backups(status.backups)}" if status.backups is not None else ""
    roles = any(node.role for node in nodes)
    headings = (*_HEADINGS, "role") if roles else _HEADINGS
    rows = table(headings, [(*_row(node), _role(node))[: len(headings)] for node in nodes], right=_FIGURES)
    reasons = [f"\n{bad(node.name)} {node.text}" for node in nodes if node.state == "failed" and node.text]
    release = f", release {status.release}" if status.release else ""
    supervisor = dim(f"supervisor {status.supervisor_pid}, epoch {status.epoch}{release}")
    page = f"\n{click.style(status.dashboard, fg='cyan')}   {dim('dashboard')}" if status.dashboard else ""
    now = f"\n{_now(summary)}" if summary is not None else ""
    urls = f"{click.style(status.url, fg='cyan')}   {supervisor}{page}"
    changes = f"\n\n{_growth(growth)}" if growth is not None else ""
    warnings = "".join(f"\n{doubtful('warning:')} {warning}" for warning in status.warnings)
    servers = f"\n\n{_servers(summary.servers)}" if summary is not None and len(summary.servers) > 1 else ""
    return f"{head}\n{urls}{now}{scaling}{backups}{changes}\n\n{rows}{servers}{''.join(reasons)}{warnings}"


def _growth(growth: Unfinished) -> str:
    """What it is, since when, where it stands; and what to do when nobody works on it."""
    now = time.time()
    what = f"from {strong(growth.before)} to {strong(growth.after)}"
    began, since = units.span(max(0.0, now - growth.began)), units.span(max(0.0, now - growth.since))
    event = {"applying": "begun", "undoing": "being taken back since"}.get(growth.event, growth.event)
    step = f"step {growth.step}: {event} {since} ago" if growth.step else "no step has begun"
    if growth.worked_on_by is not None:
        return f"{doubtful('growing')} {what}, begun {began} ago\n  {step}\n  {dim(growth.worked_on_by)}"
    reason = [f"  {bad(growth.failure)}"] if growth.failure else []
    does = {"outgrow grow --resume": "finishes it", "outgrow grow --undo": "takes it back"}
    ways = [f"  `{way}` {does[way]}" for way in growth.ways]
    head = f"{bad('not finished:')} the growth {what}, begun {began} ago; nobody works on it"
    return "\n".join([head, f"  {step}", *reason, *ways])


def _now(summary: Summary) -> str:
    """The traffic of the last seconds, and what is wrong."""
    traffic = summary.traffic
    took = [f"{name} {value:.3g} ms" for name, value in (("p50", traffic.p50), ("p99", traffic.p99)) if value]
    errors = bad(f"{traffic.errors:.3g} errors/s") if traffic.errors else dim("no errors")
    figures = f"{strong(f'{traffic.rate:,.0f}')} requests/s   {'   '.join([*took, errors])}"
    return "\n".join([figures, *(doubtful(reason) for reason in summary.health.reasons)])


def _servers(servers: list[Server]) -> str:
    """Each server's traffic: its own figures, and what the balancer makes of it."""
    rows = [_server_row(server) for server in servers]
    return table(_SERVER_HEADINGS, rows, right=tuple(range(1, len(_SERVER_HEADINGS) - 1)))


def _server_row(server: Server) -> tuple[str, ...]:
    errors = "" if server.errors is None else f"{server.errors:.3g}"
    return (
        server.name,
        "" if server.share is None else f"{server.share:.0%}",
        "" if server.rate is None else f"{server.rate:,.1f}",
        *("" if each is None else f"{each:.3g} ms" for each in (server.p50, server.p95, server.p99)),
        bad(errors) if server.errors else errors,
        "" if server.in_flight is None else f"{server.in_flight:.0f}",
        ""
        if server.balanced is None
        else _COLOURS.get(server.balanced.state, doubtful)(server.balanced.state),
    )


def _autoscale(now: Autoscaling) -> str:
    """Its targets, what they are now, and what it has done last."""
    shown = []
    for key, target in now.targets.items():
        name, form = _FORMS[key]
        value = now.now.get(key)
        shown.append(f"{name} {'-' if value is None else form(value)} of {form(target)}")
    head = f"autoscale   {now.servers} of {now.minimum} to {now.maximum} servers   {'   '.join(shown)}"
    last = f"\n{dim(f'{now.last}, {units.span(time.time() - now.last_at)} ago')}" if now.last_at else ""
    return f"{head}\n{dim(now.reason)}{last}"


def _backups(now: Backups) -> str:
    """From when on every moment can be restored, and how far the archive has come."""
    if now.latest is None or now.earliest is None:
        return f"backups     {doubtful('no copy yet')}"
    ago = units.span(max(0.0, time.time() - now.latest))
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(now.earliest))
    behind = f", the archive {units.size(now.behind)} behind" if now.behind else ""
    mirrored = now.mirror_behind_s
    mirror = f", mirrored up to {units.span(mirrored)} ago" if mirrored is not None else ""
    return f"backups     every moment since {since}, {now.copies} copies, the last {ago} ago{behind}{mirror}"


def _role(node: NodeStatus) -> str:
    """Of a database with replicas: who the primary is, and how far the others are behind."""
    if not node.role:
        return ""
    timeline = dim(f"timeline {node.timeline}")
    if node.role == "primary":
        return f"{strong(node.role)}, {timeline}"
    behind = f", {units.size(node.lag)} behind" if node.lag else ""
    return f"{node.role}, {timeline}{behind}"


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

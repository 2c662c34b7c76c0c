"""`outgrow up`: run the application and every server it needs, here or in the background."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, options
from outgrow.cli.console import Console
from outgrow.cli.formatting import Command
from outgrow.cli.report import Report

if TYPE_CHECKING:
    from outgrow.topology.model import Topology


@click.command(cls=Command)
@options.directory
@options.stage
@options.port
@click.option("-d", "--detach", is_flag=True, help="Return when all is ready; it goes on in the background.")
@options.as_json
def command(
    directory: Path | None, stage: str | None, port: int | None, detach: bool, as_json: bool
) -> int | None:
    """Run the application in APP_DIR and every server it needs, until Ctrl-C.

    Servers start in the order they need each other, the migrations run, then the application serves.
    What dies is started again. Data stays in APP_DIR/.outgrow between runs. With --json each change is
    a line of JSON.
    """
    began = time.monotonic()
    where = application.directory_with_topology(directory)
    topology = application.topology(where, stage=stage, port=port)
    if topology.application.port == 0:
        topology = topology.with_port(_free_port(topology.application.host))
    report = Report(Console(as_json=as_json), began=began, detached=detach)
    if detach:
        asyncio.run(_detached(topology, where, report))
        return None
    return asyncio.run(_foreground(topology, where, report))


async def _foreground(topology: Topology, directory: Path, report: Report) -> int:
    """Run until a signal or `outgrow down`. That is the normal end, unless it had not begun to serve."""
    from outgrow.cluster import Fleet

    stop = asyncio.Event()
    received: list[signal.Signals] = []
    for number in _stopping():
        asyncio.get_running_loop().add_signal_handler(number, _received, number, received, stop)
    try:
        await Fleet(topology, directory).run(tell=report.change, ready=report.ready, stop=stop)
    finally:
        report.close()
    if not report.is_ready and received:
        return 128 + received[0]
    report.stopped()
    return 0


def _stopping() -> tuple[signal.Signals, ...]:
    """What ends it. Under nohup, which ignores SIGHUP, the end of the terminal does not."""
    hanging_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hanging_up)


def _received(number: signal.Signals, received: list[signal.Signals], stop: asyncio.Event) -> None:
    """A second Ctrl-C changes nothing: stopping is on its way, and ends with a deadline of its own."""
    received.append(number)
    stop.set()


async def _detached(topology: Topology, directory: Path, report: Report) -> None:
    from outgrow.cluster import start_detached

    try:
        report.ready(await start_detached(topology, directory, tell=report.change))
    finally:
        report.close()


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])

"""`outgrow logs`: what the nodes have written."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgrow.cli import application, logfile, logview, options
from outgrow.cli.console import Console
from outgrow.cli.formatting import Command
from outgrow.errors import Misuse

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_INTERVAL_S = 0.1


def _complete_node(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    folder = application.logs(application.fleet_directory(ctx.params.get("directory")))
    return [CompletionItem(node) for node in logfile.nodes(folder) if node.startswith(incomplete)]


@click.command(cls=Command)
@click.argument("node", required=False, shell_complete=_complete_node)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--lines", metavar="N", type=click.IntRange(0), default=100, help="How many (100).")
@click.option("--raw", is_flag=True, help="Lines as they are in the file.")
@options.directory_option
@options.as_json
def command(
    node: str | None, follow: bool, lines: int, raw: bool, directory: Path | None, as_json: bool
) -> None:
    """Show the last lines of NODE's log ("app": of all its servers), or of every node's.

    They outlive the fleet.
    """
    folder = application.logs(application.fleet_directory(directory))
    shown = _chosen(folder, node)
    console = Console(as_json=as_json)
    printer = Printer(console, shown, raw=raw)
    followers = (
        {name: logfile.Follower(folder / f"{name}{logfile.SUFFIX}") for name in shown} if follow else {}
    )
    ends = {name: follower.begin for name, follower in followers.items()}
    for name, line in _merged(folder, shown, lines, ends):
        printer.print(name, line)
    while follow:
        for name, follower in followers.items():
            for line in follower.read():
                printer.print(name, line)
        time.sleep(_INTERVAL_S)


class Printer:
    """Lines of one node or of several, as asked for."""

    def __init__(self, console: Console, nodes: list[str], *, raw: bool) -> None:
        self._console = console
        self._nodes = nodes
        self._raw = raw
        self._width = max(map(len, nodes), default=0)

    def print(self, node: str, line: str) -> None:
        """One line of that node."""
        if self._console.as_json:
            self._console.document({"node": node, **(logview.parsed(line) or {"message": line})})
            return
        text = line if self._raw else logview.readable(line)
        if len(self._nodes) > 1:
            text = logview.prefixed(node, self._width, self._nodes.index(node), text)
        click.echo(text)


def _chosen(folder: Path, node: str | None) -> list[str]:
    existing = logfile.nodes(folder)
    if node is None:
        if not existing:
            raise Misuse(f"there are no logs in {folder}", hint="`outgrow up` writes them")
        return existing
    # "app" is every process of the application: app, app-1, app-2.2.
    found = [each for each in existing if re.fullmatch(rf"{re.escape(node)}(?:-\d+)?(?:\.\d+)?", each)]
    if not found:
        near = difflib.get_close_matches(node, existing, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise Misuse(
            f"there is no log of a node {node!r}", hint=f"{guess}nodes: {', '.join(existing) or 'none yet'}"
        )
    return found


def _merged(folder: Path, nodes: list[str], count: int, ends: Mapping[str, int]) -> list[tuple[str, str]]:
    """The last `count` lines of all nodes together, in the order of time; `ends` limits a log."""
    lines = [
        (moment, node, line)
        for node in nodes
        for moment, line in _timed(
            logfile.last_lines(folder / f"{node}{logfile.SUFFIX}", count, end=ends.get(node))
        )
    ]
    lines.sort(key=lambda each: each[0])
    return [(node, line) for _, node, line in lines[len(lines) - count if count < len(lines) else 0 :]]


def _timed(lines: list[str]) -> list[tuple[str, str]]:
    """Each line with its time; one that has none belongs to the line before it."""
    moment = ""
    timed: list[tuple[str, str]] = []
    for line in lines:
        fields = logview.parsed(line)
        moment = str(fields["ts"]) if fields and "ts" in fields else moment
        timed.append((moment, line))
    return timed

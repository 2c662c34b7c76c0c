"""`outgrow drill`: hurt the running application on purpose, under load, and see what holds."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from outgrow.cli import application, options, written
from outgrow.cli.console import Console, bad, dim, good, strong
from outgrow.cli.formatting import Command
from outgrow.cli.load import FILE, Watching, scenario_file
from outgrow.cli.stopping import SIGNALS, until_stopped
from outgrow.errors import Misuse, OutgrowError

if TYPE_CHECKING:
    from outgrow.chaos.drills import Drill
    from outgrow.chaos.history import Happening
    from outgrow.chaos.report import Report
    from outgrow.chaos.scene import Place
    from outgrow.load.profile import Scenario

LIST = "list"


@click.command(cls=Command)
@click.argument("name", metavar="list|NAME")
@options.directory
@click.option("--yes", is_flag=True, help="Do it without asking: it hurts what runs.")
@click.option(
    "--scenario",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"The load; {FILE} in APP_DIR unless given. It needs [marks].",
)
@click.option(
    "--rate", metavar="N", type=click.FloatRange(0, 1_000_000, min_open=True), help="Requests a second."
)
@click.option("--users", metavar="N", type=click.IntRange(1, 100_000), help="How many users there are.")
@click.option(
    "--events",
    metavar="N",
    type=click.IntRange(1, 10_000),
    help="How often: `scale` changes the number of servers 10 times unless given, others hurt once.",
)
@written.option("FILE.html with plots, .json with every request, or .txt")
@options.as_json
def command(
    name: str,
    directory: Path | None,
    yes: bool,
    scenario: Path | None,
    events: int | None,
    report_file: Path | None,
    as_json: bool,
    **changes: Any,
) -> int:
    """Hurt the application that runs in APP_DIR on purpose, under load, and see whether its promises hold.

    `outgrow drill list` shows what there is. A drill kills, stops or cuts off what runs, so users of this
    fleet would notice: it asks first, and needs --yes where nobody can be asked. What it has done is
    undone at its end, on Ctrl-C, and if it is killed by the next drill or by `outgrow down`.

    Exit code 0 when every promise held, 1 when one is broken.
    """
    console = Console(as_json=as_json)
    if name == LIST:
        _list(console)
        return 0
    from outgrow.chaos import drills, html, text

    drill = drills.find(name)
    written.require_form(report_file)
    place = _place(directory, events)
    load = _changed(scenario_file(directory, scenario), changes)
    _require_consent(drill, place, yes=yes)
    report = _run_noted(drill, place, load, console)
    written.write(report_file, report, html, text, console)
    _show(report, console)
    return 0 if report.held else 1


def _list(console: Console) -> None:
    from outgrow import stages
    from outgrow.chaos import drills

    documents, blocks = [], []
    for name in drills.TABLE:
        drill = drills.find(name)
        proves = [
            {"stage": stage.number, "name": stage.name, "promise": promise.says}
            for stage in stages.LADDER
            for promise in stage.promises
            if name in promise.drills
        ]
        documents.append(
            {"name": name, "shows": drill.shows, "needs": drill.needs, "does": drill.does, "proves": proves}
        )
        lines = [strong(name), f"  {drill.shows}", f"  {dim('does')}   {drill.does}"]
        lines.append(f"  {dim('needs')}  {drill.needs}")
        lines += [f"  {dim('proves')} stage {each['stage']}: {each['promise']}" for each in proves]
        blocks.append("\n".join(lines))
    console.result({"drills": documents}, "\n\n".join(blocks))


def _place(directory: Path | None, events: int | None) -> Place:
    from outgrow import cluster
    from outgrow.chaos.scene import Place

    where = application.directory_with_topology(directory)
    if not cluster.running(where):
        raise Misuse(
            f"no fleet is running in {where}, and a drill needs one that may be hurt",
            hint=f"`outgrow up {where} --detach`, there or in a copy that may be spoilt",
        )
    status = asyncio.run(cluster.status(where, measured=False))
    port = int(status.url.rpartition(":")[2])
    return Place(where.resolve(), application.topology(where, stage=status.stage, port=port), events)


def _changed(file: Path, changes: dict[str, Any]) -> Scenario:
    from outgrow.chaos.marks import require
    from outgrow.load.parse import parse_file

    scenario = parse_file(file)
    require(scenario)
    if changes["users"] is not None:
        scenario = msgspec.structs.replace(scenario, users=changes["users"])
    return scenario.steady(changes["rate"], None)


def _require_consent(drill: Drill, place: Place, *, yes: bool) -> None:
    if yes:
        return
    what = f"{drill.name} hurts the fleet that runs in {place.directory}: {drill.does}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Misuse(what, hint="--yes if that is what you want")
    if not click.confirm(f"{what}. Do it?", err=True):
        raise Misuse("nothing was done")


def _run_noted(drill: Drill, place: Place, scenario: Scenario, console: Console) -> Report:
    """With a line in the audit that says how it has ended."""
    from outgrow.cluster.state import State
    from outgrow.growth import journal as journals

    began, outcome = time.time(), "interrupted"
    try:
        report = _run(drill, place, scenario, console)
        broken = [each.promise.rstrip(".") for each in report.findings if not each.held]
        outcome = f"broken: {'; '.join(broken)}" if broken else "held"
        return report
    except Misuse:
        outcome = ""  # nothing was done
        raise
    except OutgrowError as error:
        outcome = f"failed: {error.message}"
        raise
    finally:
        if outcome:
            journals.audit(State(place.directory).growth, began, f"drill: {drill.name}", "", outcome)


def _run(drill: Drill, place: Place, scenario: Scenario, console: Console) -> Report:
    from outgrow.chaos.run import Listener, run

    watching = Watching(console)

    def happened(happening: Happening) -> None:
        watching.close()
        console.note(f"{happening.at:8.3f} s  {happening.node}: {happening.text}")

    console.note(f"{drill.name}: {drill.does}")
    try:
        work = run(drill, place, scenario, hear=Listener(watching.tell, happened))
        return asyncio.run(until_stopped(work, (*SIGNALS, signal.SIGHUP)))
    finally:
        watching.close()


def _show(report: Report, console: Console) -> None:
    """For programs without each request, which --report FILE.json has."""
    from outgrow.chaos.text import text

    document = msgspec.to_builtins(report)
    del document["history"]
    verdict = good("held") if report.held else bad("broken")
    console.result(document, f"{text(report)}\n\n{verdict}")

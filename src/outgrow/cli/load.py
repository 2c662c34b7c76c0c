"""`outgrow load`: send the running application requests at a chosen rate, and check what it answers."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from outgrow.cli import application, options, written
from outgrow.cli.console import Console, bad, doubtful
from outgrow.cli.formatting import Command
from outgrow.errors import Misuse

if TYPE_CHECKING:
    from outgrow.load.generator import Progress
    from outgrow.load.profile import Scenario
    from outgrow.load.report import Report
    from outgrow.load.target import Target

FILE = "load.toml"
_PLAIN_EVERY_S = 5
_CLEAR = "\r\x1b[2K"


class _Duration(click.ParamType[float]):
    """Seconds, or a text such as 2m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        from outgrow.load.parse import seconds

        try:
            found: float | None = float(value)
        except ValueError:
            found = seconds(value)
        if found is None or not 0 <= found <= 7 * 86_400:
            self.fail(f'{value!r} is no duration like 30, "90s" or "2m"', param, ctx)
        return found


class _ErrorsMax(NamedTuple):
    """So many errors, or such a share of all requests, are borne."""

    most: float
    is_share: bool

    def exceeded(self, report: Report) -> bool:
        """Whether there were more."""
        if self.is_share:
            return report.error_share > self.most
        return report.failed + report.not_sent > self.most


class _Errors(click.ParamType[_ErrorsMax]):
    """A count, or a percentage."""

    name = "errors"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _ErrorsMax:
        """As a limit."""
        text = str(value)
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            self.fail(f'{value!r} is neither a count like 10 nor a share like "0.1%"', param, ctx)
        return _ErrorsMax(number / 100 if text.endswith("%") else number, text.endswith("%"))


@click.command(cls=Command)
@options.directory
@click.option("--url", metavar="URL", help="Where to send them, in place of the fleet that runs in APP_DIR.")
@click.option(
    "--scenario",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"What to send; {FILE} in APP_DIR unless given.",
)
@click.option(
    "--rate", metavar="N", type=click.FloatRange(0, 1_000_000, min_open=True), help="Requests a second."
)
@click.option("--duration", metavar="S", type=_Duration(), help="How long to measure, as 60 or 2m.")
@click.option("--warmup", metavar="S", type=_Duration(), help="How long to go on before that, unmeasured.")
@click.option("--users", metavar="N", type=click.IntRange(1, 100_000), help="How many users there are.")
@click.option(
    "--connections", metavar="N", type=click.IntRange(1, 10_000), help="Requests under way at once, at most."
)
@click.option(
    "--bookmark",
    type=click.Choice(["keep", "drop"]),
    help="Whether users send back the bookmark that proves what they have written.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), help="The same seed makes the same requests.")
@click.option("--errors-max", metavar="N|P%", type=_Errors(), help="Fail when there are more errors.")
@click.option("--allow-remote", is_flag=True, help="Load a machine other than this one. It must be yours.")
@written.option("FILE.html with plots, .json or .txt")
@options.as_json
def command(
    directory: Path | None,
    url: str | None,
    scenario: Path | None,
    errors_max: _ErrorsMax | None,
    allow_remote: bool,
    report_file: Path | None,
    as_json: bool,
    **changes: Any,
) -> int:
    """Load the application that runs in APP_DIR, at a rate that does not depend on its answers.

    Latencies count from the moment at which each request was meant to start. Answers are checked: a
    user's own writes must be visible to that user. Ctrl-C ends it early, with a report. A rate or a
    duration given here replaces the scenario's phases by one.

    Exit code 0, or 1 after a violation, more errors than --errors-max, or no right answer at all.
    """
    from outgrow.load import html, text
    from outgrow.load.parse import parse_file
    from outgrow.load.target import resolve

    written.require_form(report_file)
    chosen = _changed(parse_file(scenario_file(directory, scenario)), changes)
    target = resolve(url or _fleet_url(directory), allow_remote=allow_remote)
    console = Console(as_json=as_json)
    report = _run(chosen, target, console)
    written.write(report_file, report, html, text, console)
    reasons = _reasons(report, errors_max)
    _show(report, reasons, console)
    return 1 if reasons else 0


def scenario_file(directory: Path | None, given: Path | None) -> Path:
    """The one given, or that of the application. Raises Misuse when it has none."""
    if given is not None:
        return given
    where = application.fleet_directory(directory)
    if not (where / FILE).exists():
        raise Misuse(
            f"there is no {FILE} in {where}",
            hint="--scenario FILE names another; docs/load.md tells how to write one",
        )
    return where / FILE


def _fleet_url(directory: Path | None) -> str:
    from outgrow import cluster

    return asyncio.run(cluster.status(application.fleet_directory(directory))).url


def _changed(scenario: Scenario, changes: dict[str, Any]) -> Scenario:
    from msgspec.structs import replace

    rate, duration = changes.pop("rate"), changes.pop("duration")
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(scenario.steady(rate, duration), **given)


def _run(scenario: Scenario, target: Target, console: Console) -> Report:
    import uvloop

    from outgrow.load.generator import run

    watching = Watching(console)

    async def until_stopped() -> Report:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await run(scenario, target, stop=stop, tell=watching.tell)

    console.note(f"{scenario.name} at {target.url}")
    try:
        return uvloop.run(until_stopped())
    finally:
        watching.close()


class Watching:
    """One line that is redrawn, or on no terminal a plain line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = -_PLAIN_EVERY_S
        self._state = ""

    def tell(self, progress: Progress) -> None:
        """How it goes."""
        if self._console.live:
            sys.stderr.write(_CLEAR + _line(progress))
            sys.stderr.flush()
        elif self._is_news(progress):
            self._told, self._state = int(progress.second), _kind(progress)
            self._console.note(click.unstyle(_line(progress)) if progress.total else self._state)

    def close(self) -> None:
        """The line goes."""
        if self._console.live:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def _is_news(self, progress: Progress) -> bool:
        return _kind(progress) != self._state or progress.second - self._told >= _PLAIN_EVERY_S


def _kind(progress: Progress) -> str:
    """What it is doing, without how far it is."""
    return progress.state.partition(",")[0]


def _line(progress: Progress) -> str:
    from outgrow.load import words

    if not progress.total:
        return progress.state
    p50, p99 = progress.row.latency.percentiles((50.0, 99.0))
    parts = [
        f"{progress.state} {progress.second:.0f} of {progress.total:.0f} s",
        f"{words.rate(progress.answered_rate)} of {words.rate(progress.rate)}",
        f"p50 {words.duration(p50 / 1000)}",
        f"p99 {words.duration(p99 / 1000)}",
        _counted(progress.errors, "error"),
    ]
    if progress.violations:
        parts.append(_counted(progress.violations, "violation"))
    if progress.waiting:
        parts.append(doubtful(f"{progress.waiting:,} waiting"))
    return ", ".join(parts)


def _counted(count: int, what: str) -> str:
    text = f"{count:,} {what}{'' if count == 1 else 's'}"
    return bad(text) if count else text


def _reasons(report: Report, errors_max: _ErrorsMax | None) -> list[str]:
    """Why the run counts as failed."""
    reasons: list[str] = []
    if report.violations:
        reasons.append(f"{report.violations:,} violation{'' if report.violations == 1 else 's'}")
    if errors_max is not None and errors_max.exceeded(report):
        reasons.append("more errors than --errors-max allows")
    if not report.answered:
        reasons.append("no request was answered as it should be")
    return reasons


def _show(report: Report, reasons: list[str], console: Console) -> None:
    from outgrow.load.text import text

    verdict = f"\n\n{bad('failed:')} {'; '.join(reasons)}" if reasons else ""
    console.result(report, text(report) + verdict)

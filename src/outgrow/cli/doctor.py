"""`outgrow doctor`: what is installed, what is missing, and the command that installs it."""

from __future__ import annotations

from pathlib import Path

import click

from outgrow.cli import checkup, options
from outgrow.cli.checkup import Check
from outgrow.cli.console import Console, bad, dim, doubtful, good, strong
from outgrow.cli.formatting import Command

_MARKS = {"ok": good("ok     "), "missing": bad("missing"), "absent": doubtful("absent ")}


@click.command(cls=Command)
@options.directory
@options.stage
@options.as_json
def command(directory: Path | None, stage: str | None, as_json: bool) -> int:
    """Check this machine, and the application in APP_DIR if there is one.

    Exit code 1 if something is missing that the application needs at its stage, or at the one given.
    What is merely absent would be needed for more: a later stage, or an option that is off.
    """
    checks = checkup.all_checks(directory, stage)
    missing = [check for check in checks if check.state == "missing"]
    Console(as_json=as_json).result({"ok": not missing, "checks": checks}, _text(checks, missing))
    return 1 if missing else 0


def _text(checks: list[Check], missing: list[Check]) -> str:
    lines: list[str] = []
    for title in dict.fromkeys(check.group for check in checks):
        lines += [strong(title), *(_line(check) for check in checks if check.group == title), ""]
    verdict = f"{len(missing)} missing" if missing else "everything needed is here"
    return "\n".join([*lines, bad(verdict) if missing else good(verdict)])


def _line(check: Check) -> str:
    fix = f"\n          {click.style('→', fg='cyan')} {check.fix}" if check.fix else ""
    return f"  {_MARKS[check.state]} {check.name}  {dim(check.detail)}{fix}"

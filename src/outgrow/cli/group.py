"""The root command and the table of its commands. Each is imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
from typing import NamedTuple, cast

import click

from outgrow.cli.formatting import Context


class Entry(NamedTuple):
    """A command as `outgrow --help` lists it, so that help imports none of them."""

    module: str
    summary: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "An application": {
        "new": Entry("new", "Make a small application that runs, with comments that teach."),
        "up": Entry("up", "Run the application and every server it needs."),
        "down": Entry("down", "Stop it, and whatever a crash has left behind."),
    },
    "While it runs": {
        "status": Entry("status", "Show what runs, where, and how it feels."),
        "logs": Entry("logs", "Show what the nodes have written."),
        "cache": Entry("cache", "Show what the caches do, or have them forget."),
        "seed": Entry("seed", "Fill it with data, by the application's own seed function."),
        "migrate": Entry("migrate", "Bring the database to the newest migration."),
        "load": Entry("load", "Send it requests at a chosen rate, and check what it answers."),
        "drill": Entry("drill", "Hurt it on purpose, under load, and see what holds."),
    },
    "When something is lost": {
        "backup": Entry("backup", "Copy the whole database, or list what can be restored."),
        "restore": Entry("restore", "Put the database back to how it was at a moment."),
    },
    "When it must grow": {
        "scale": Entry("scale", "More or fewer servers and processes, while it serves."),
        "deploy": Entry("deploy", "Replace what runs by new code, while it serves."),
        "grow": Entry("grow", "Move to a further stage while the application serves."),
        "shrink": Entry("shrink", "Move back to an earlier stage, with everything written since."),
    },
    "A database with replicas": {
        "switchover": Entry("switchover", "Make another node the primary, as planned."),
        "failover": Entry("failover", "Give the primary up; another node takes over."),
        "rebuild": Entry("rebuild", "Have a replica copy the whole database anew."),
        "pause": Entry("pause", "No automatic failover, for maintenance."),
        "resume": Entry("resume", "Automatic failover again."),
    },
    "This machine": {
        "doctor": Entry("doctor", "Check what is installed, and say how to install the rest."),
        "completion": Entry("completion", "Print the completion script of a shell."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Root(click.Group):
    """A group whose commands live in modules of their own."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"outgrow.cli.{entry.module}")
        return cast("click.Command", module.command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was typed. Raises UsageError with the nearest name if there is none."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]!r}{guess}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, from the entries alone."""
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in entries.items()])


@click.group(
    cls=Root,
    epilog="Start:  outgrow new hello && outgrow up hello",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="outgrow", prog_name="outgrow", message="%(prog)s %(version)s")
def root() -> None:
    """Start as one process on one SQLite file and grow to millions of users without a rewrite."""

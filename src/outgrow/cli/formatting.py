"""How help looks: click's own, with colour. click removes the colour where no terminal reads it."""

from __future__ import annotations

from collections.abc import Iterable

import click


class HelpFormatter(click.HelpFormatter):
    """Bold headings, names apart from what they mean."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The first line."""
        super().write_usage(prog, args, prefix=click.style(prefix or "Usage: ", bold=True))

    def write_heading(self, heading: str) -> None:
        """The title of a section."""
        super().write_heading(click.style(heading, bold=True))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """A list of names, each with its meaning."""
        super().write_dl([(click.style(name, fg="cyan"), text) for name, text in rows], col_max, col_spacing)


class Context(click.Context):
    """click's context with this help formatter; subcommands inherit it."""

    formatter_class = HelpFormatter


class Command(click.Command):
    """A command with this context."""

    context_class = Context

"""What a command prints. With --json standard output carries JSON alone, one document or one a line."""

from __future__ import annotations

import os
import sys
from typing import Any

import click


class Console:
    """Standard output for results, standard error for everything said along the way."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def live(self) -> bool:
        """Whether a person watches: lines may be redrawn."""
        return not self.as_json and sys.stdout.isatty() and sys.stderr.isatty()

    def result(self, document: Any, text: str) -> None:
        """The command's answer: `document` for programs, `text` for people."""
        if self.as_json:
            self.document(document)
        else:
            click.echo(text)

    def document(self, document: Any) -> None:
        """One line of JSON, at once."""
        import msgspec

        click.echo(msgspec.json.encode(document))

    def note(self, text: str) -> None:
        """A line about the command's own work, on standard error; nothing with --json."""
        if not self.as_json:
            click.echo(text, err=True)


def hang_up() -> None:
    """Nobody reads any more (the terminal or the pipe is gone): what is still written goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())
    os.close(null)


def dim(text: str) -> str:
    """Of less interest."""
    return click.style(text, dim=True)


def strong(text: str) -> str:
    """A heading, or what it is about."""
    return click.style(text, bold=True)


def good(text: str) -> str:
    """As it should be."""
    return click.style(text, fg="green")


def bad(text: str) -> str:
    """Failed."""
    return click.style(text, fg="red", bold=True)


def doubtful(text: str) -> str:
    """Neither good nor bad, or not yet."""
    return click.style(text, fg="yellow")

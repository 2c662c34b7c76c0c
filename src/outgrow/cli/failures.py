"""Every way a command can fail, as a sentence, a way out and an exit code."""

from __future__ import annotations

import os
import traceback
from typing import Any

import click

from outgrow.cli.console import Console, bad
from outgrow.errors import Misuse, NodeFailed, OutgrowError, ScenarioError, TopologyError

TRACEBACK = "OUTGROW_TRACEBACK"
"""Set to anything, it shows where an error came from: for bug reports and for work on Outgrow."""


def report(error: Exception, *, as_json: bool) -> int:
    """Tell what went wrong and return the exit code."""
    known = explained(error)
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if as_json:
        Console(as_json=True).document({"error": facts(known)})
    else:
        click.echo(sentence(known), err=True)
    return known.exit_code


def explained(error: Exception) -> OutgrowError:
    """The error itself, or what a click or operating system error means here."""
    if isinstance(error, OutgrowError):
        return error
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "outgrow"
        return Misuse(_lowered(error.format_message()), hint=f"`{path} --help` shows how to call it")
    if isinstance(error, click.ClickException):
        return Misuse(_lowered(error.format_message()))
    if isinstance(error, OSError):
        return _of_the_system(error)
    return OutgrowError(
        f"this is a mistake in Outgrow itself: {type(error).__name__}: {error}",
        hint=f"{TRACEBACK}=1 in the environment shows where; please report it with that text",
    )


def sentence(error: OutgrowError) -> str:
    """The error for people, in colour."""
    text = f"{bad('error:')} {error.message}"
    return f"{text}\n{click.style('  → ', fg='cyan')}{error.hint}" if error.hint else text


def facts(error: OutgrowError) -> dict[str, Any]:
    """The error for programs."""
    told: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, TopologyError | ScenarioError) and hasattr(error, "problems"):
        told["source"] = error.source
        told["problems"] = [
            {"line": each.line, "path": each.path, "message": each.message, "hint": each.hint}
            for each in error.problems
        ]
    if isinstance(error, NodeFailed) and hasattr(
        error, "node"
    ):  # one told by another process is its text alone
        told |= {"node": error.node, "reason": error.reason, "log_tail": error.log_tail}
    return told


def _of_the_system(error: OSError) -> OutgrowError:
    place = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error) or type(error).__name__
    hints = {
        PermissionError: "give this user the right to it, or work in another directory",
        FileNotFoundError: "name a directory that exists",
        NotADirectoryError: "a file is in the way: name a directory",
    }
    return OutgrowError(f"{place}{reason}", hint=hints.get(type(error), ""))


def _lowered(text: str) -> str:
    """click's sentences in the form of ours: no capital, no full stop."""
    text = text.strip().removesuffix(".")
    return text[:1].lower() + text[1:]

"""One line of a node's log, for people: JSON becomes a sentence, anything else stays as it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red", "critical": "red"}
_SHORT = {"warning": "WARN", "critical": "FATAL"}
_TOLD = {"ts", "level", "logger", "message", "trace_id", "span_id", "exception", "error", "stack"}
"""Fields with a place of their own in the sentence, or of use to programs alone."""

NODE_COLOURS = ("cyan", "magenta", "blue", "yellow", "green")


def parsed(line: str) -> dict[str, Any] | None:
    """The line's fields if it is one of Outgrow's JSON lines."""
    if not line.startswith("{"):
        return None
    import msgspec

    try:
        fields = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return fields if isinstance(fields, dict) and "message" in fields else None


def readable(line: str) -> str:
    """The line as a person wants it."""
    fields = parsed(line)
    if fields is None:
        return line
    level = str(fields.get("level", "info")).lower()
    name = click.style(_SHORT.get(level, level.upper()).ljust(5), fg=_COLOURS.get(level))
    if fields.get("logger") == "outgrow.access":
        words = [click.style(_clock(fields.get("ts")), dim=True), name, _access(fields)]
        return " ".join(words)
    extra = " ".join(f"{key}={value}" for key, value in fields.items() if key not in _TOLD)
    words = [click.style(_clock(fields.get("ts")), dim=True), name, str(fields["message"])]
    if extra:
        words.append(click.style(extra, dim=True))
    text = " ".join(words)
    trace = fields.get("exception") or fields.get("stack")
    return f"{text}\n{trace}" if trace else text


def prefixed(node: str, width: int, index: int, text: str) -> str:
    """The text with its node before every line."""
    name = click.style(f"{node.ljust(width)} |", fg=NODE_COLOURS[index % len(NODE_COLOURS)])
    return "\n".join(f"{name} {line}" for line in text.split("\n"))


def _access(fields: dict[str, Any]) -> str:
    """One request: GET /articles 200 3.1 ms."""
    status = int(fields.get("status", 0))
    colour = "red" if status >= 500 else "yellow" if status >= 400 else "green"
    took = click.style(f"{fields.get('ms', 0):.1f} ms", dim=True)
    words = [str(fields.get("method")), str(fields.get("path")), click.style(str(status), fg=colour), took]
    if fields.get("error"):
        words.append(click.style(str(fields["error"]), fg="red"))
    return " ".join(words)


def _clock(ts: Any) -> str:
    """The time of day here; of a time in seconds, or in ISO 8601 as the runtime writes it."""
    try:
        moment = (
            datetime.fromtimestamp(ts) if isinstance(ts, int | float) else datetime.fromisoformat(str(ts))
        )
    except ValueError:
        return str(ts)
    return moment.astimezone().strftime("%H:%M:%S.%f")[:-3]

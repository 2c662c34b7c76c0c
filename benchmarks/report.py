"""Tables for the terminal and for docs/benchmarks.md, which has a place for each benchmark's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.client import percentile

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others figures."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """ "median (min to max)"; the value alone when there is one."""
    if not values:
        return "-"
    middle = median(values)
    if len(values) == 1:
        return format(middle, form)
    return f"{middle:{form}} ({min(values):{form}} to {max(values):{form}})"


def median(values: Sequence[float]) -> float:
    """The middle one; of an even number the lower of the two, so that nothing is averaged."""
    return percentile(sorted(values), (len(values) - 1) // 2 / len(values))


def verdict(what: str, value: float, target: float, *, at_least: bool, unit: str = "") -> str:
    """One line: the figure, what it should be, and whether it is."""
    good = value >= target if at_least else value <= target
    relation = "at least" if at_least else "at most"
    return (
        f"- {what}: **{value:.2f}{unit}**, target {relation} {target:g}{unit}: {'met' if good else 'MISSED'}"
    )


def write(name: str, text: str, *, quick: bool, pinned: bool = True) -> None:
    """Put it in its place in the document, with what a reader must know of the run.

    `pinned`: servers and load had a core each.
    """
    facts = machine.describe()
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    kind = "; a quick run, whose figures are not to be trusted" if quick else ""
    place, software = (
        f"{facts['machine']}; {facts['cores'] if pinned else 'no core is assigned'}",
        f"Python {facts['python']}; {facts['packages']}",
    )
    note = f"{moment}; {place}; {software}{kind}."
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    document = DOCUMENT.read_text()
    room = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not room.search(document):
        raise SystemExit(f"{DOCUMENT.name} has no place for {name}: add the lines {begin} and {end}")
    filled = f"{begin}\n{text.strip()}\n\nMeasured {note}\n{end}"
    DOCUMENT.write_text(room.sub(lambda _: filled, document))

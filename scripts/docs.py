"""Writes the documents that the code itself knows best: python scripts/docs.py [--check]

    stages/                  ─►  docs/stages.md, and the table between <!-- stages --> marks in README.md
    topology/reference.toml  ─►  docs/configuration.md
    topology/model.py        ─►  docs/outgrow.schema.json

With --check nothing is written: exit code 1 names what is not up to date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from outgrow import stages
from outgrow.stages import Due, Promise, Stage
from outgrow.topology import Topology, parse
from outgrow.topology.diff import diff
from outgrow.topology.model import Section
from outgrow.topology.schema import json_schema
from outgrow.topology.wording import accepted, alternative

ROOT = Path(__file__).parents[1]
MARKS = ("<!-- stages -->", "<!-- /stages -->")
KEY = re.compile(r"^(?:# )?(?P<line>(?P<key>[\w-]+) = .+)$")
SECTION = re.compile(r"^\[(?P<name>\[?[\w.]+\]?)\]$")


def documents(root: Path) -> Iterator[tuple[Path, str]]:
    """Each generated document: its place, and what it should hold."""
    yield root / "docs" / "stages.md", stages_document()
    yield root / "docs" / "configuration.md", configuration_document()
    yield root / "docs" / "outgrow.schema.json", json.dumps(json_schema(), indent=2) + "\n"
    readme = root / "README.md"
    text = readme.read_text() if readme.exists() else ""
    if all(mark in text for mark in MARKS):
        before, rest = text.split(MARKS[0], 1)
        after = rest.split(MARKS[1], 1)[1]
        table = stages_table("docs/stages.md")
        yield readme, f"{before}{MARKS[0]}\n{table}{MARKS[1]}{after}"


# --- docs/stages.md ----------------------------------------------------------------------------------


def stages_document() -> str:
    """The ladder: a table, then a section for each stage."""
    intro = (
        "# The ladder\n\n"
        "Eleven stages, from one process on one file to millions of users. The rule: add complexity only "
        "when the present architecture can no longer meet its requirements. A stage is due when its "
        "measures say so, and each has a price. The application's code stays the same on all of them.\n\n"
        "`outgrow up --stage NAME` (or its number) runs an application at a stage; "
        '`stage = "NAME"` in [outgrow.toml](configuration.md) keeps it there.\n'
    )
    parts = (intro, stages_table(""), *map(_stage, stages.LADDER))
    return "\n".join(parts)


def stages_table(document: str) -> str:
    """A row for each stage; `document` is where the links lead."""
    head = "| | stage | adds | due when |\n|---|---|---|---|\n"
    return head + "".join(_row(stage, document) for stage in stages.LADDER)


def _row(stage: Stage, document: str) -> str:
    name = f"[{stage.title}]({document}#{_anchor(stage)})" + ("" if stage.built else " (to come)")
    due = "; ".join(due.says for due in stage.due) or "the beginning"
    return f"| {stage.number} | {name} | {stage.adds} | {due} |\n"


def _stage(stage: Stage) -> str:
    parts = [f"## {_heading(stage)}", stage.problem, f"**It adds** {stage.adds}."]
    if stage.due:
        parts.append("**It is due when**\n\n" + "\n".join(map(_due, stage.due)))
    parts.append("**It promises**\n\n" + "\n".join(map(_promise, stage.promises)))
    parts += [f"**It costs.** {stage.cost}", _change(stage)]
    return "\n\n".join(parts) + "\n"


def _heading(stage: Stage) -> str:
    return f"{stage.number}. {stage.title}"


def _anchor(stage: Stage) -> str:
    return _heading(stage).lower().replace(".", "").replace(" ", "-")


def _due(due: Due) -> str:
    lasting = f" for {_minutes(due.minutes)}" if due.minutes else ""
    value = f"{due.value:,.0f}" if due.value > 1 else f"{due.value:g}"
    return f"- {due.says} (`{due.measure} {due.comparison} {value}`{lasting})"


def _minutes(minutes: float) -> str:
    return f"{minutes / 60:g} hours" if minutes > 60 else f"{minutes:g} minutes"


def _promise(promise: Promise) -> str:
    drill = f" Proof: [{promise.drill}](../{promise.drill})." if promise.drill else ""
    names = ", ".join(f"`outgrow drill {name}`" for name in promise.drills)
    return f"- {promise.says}{drill}" + (f" See it: {names}." if names else "")


def _change(stage: Stage) -> str:
    if not stage.built:
        return "Not built yet in this version: `outgrow up` says so and changes nothing."
    here = parse(f"stage = {stage.number}")
    earlier = [each.number for each in stages.LADDER if each.built and each.number < stage.number]
    before = parse(f"stage = {earlier[-1]}") if earlier else here
    follows = [each for each in diff(before, here) if each.path != "stage"]
    rows = "".join(
        f"\n- `{each.path}`, `{each.before}` before, "
        + ("does not apply any more" if each.after is None else f"becomes `{each.after}`")
        for each in follows
    )
    return f'**In outgrow.toml:** `stage = "{stage.name}"`.' + (f" From it follows\n{rows}" if rows else "")


# --- docs/configuration.md ---------------------------------------------------------------------------


class Entry(NamedTuple):
    """A key of the reference or, with no line, the beginning of a section."""

    section: str
    key: str
    line: str
    text: str


def configuration_document() -> str:
    """The manual of outgrow.toml: the reference's own sentences, and what each key accepts."""
    reference = resources.files("outgrow.topology").joinpath("reference.toml").read_text()
    intro, entries = _reference(reference)
    head = (
        "# outgrow.toml\n\n"
        "The only configuration that a person edits. Every mistake in it is told at once, each with its "
        "line and the nearest right spelling.\n\n"
        "An editor that knows TOML schemas checks and completes it while you write, with this as the "
        "first line: `#:schema PATH_OR_URL_OF/docs/outgrow.schema.json`.\n\n"
    )
    return head + "\n\n".join([intro, *map(_entry, entries)]) + "\n"


def _reference(text: str) -> tuple[str, list[Entry]]:
    """The introduction of reference.toml, and its keys with the comments above them."""
    intro, section = "", ""
    comment: list[str] = []
    entries: list[Entry] = []
    for line in text.splitlines():
        header, key = SECTION.match(line), KEY.match(line)
        if line.startswith("#") and not key:
            comment.append(line[1:].strip())
            continue
        if header:
            section = header["name"]
            entries.append(Entry(section, "", "", _paragraphs(comment)))
        elif key:
            entries.append(Entry(section, key["key"], key["line"], _paragraphs(comment)))
        elif comment:
            intro = _paragraphs(comment)
        comment.clear()
    return intro, entries


def _paragraphs(lines: Sequence[str]) -> str:
    """Comment lines as running text; an empty line ends a paragraph."""
    return "\n\n".join(part.replace("\n", " ") for part in "\n".join(lines).split("\n\n"))


def _entry(entry: Entry) -> str:
    if not entry.key:
        return f"## [{entry.section}]\n\n{entry.text}".strip()
    section = entry.section.strip("[]")
    heading = f"### {section}.{entry.key}" if section else f"## {entry.key}"
    facts = _facts(section, entry.key)
    parts = (heading, entry.text, f"```toml\n{entry.line}\n```", facts)
    return "\n\n".join(part for part in parts if part)


def _facts(section: str, key: str) -> str:
    schema = _schema(section, key)
    if schema is None:  # a name of the author's own, such as a variable's
        return "This is an example."
    words = "the name or the number of a [stage](stages.md)" if key == "stage" else accepted(schema)
    kind = "an example" if alternative(schema).get("default") is None else "the default"
    return f"It accepts {words}. This is {kind}."


def _schema(section: str, key: str) -> dict[str, Any] | None:
    table: Any = Topology
    for name in filter(None, section.split(".")):
        kind = get_type_hints(table)[name]
        table = get_args(kind)[0] if get_origin(kind) is tuple else kind
    if not isinstance(table, type) or not issubclass(table, Section):
        return None
    definition = msgspec.json.schema(table)["$defs"][table.__name__]
    schema: dict[str, Any] = definition["properties"][key]
    return schema


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the documents, or with --check name those that are stale. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the generated documents.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if one is not up to date")
    check = parser.parse_args(arguments).check
    stale = [(path, text) for path, text in documents(root) if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if check:
            print(f"{path.relative_to(root)} is not up to date: run python scripts/docs.py", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"wrote {path.relative_to(root)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The one line of outgrow.toml that a growth changes. A person's comments and order stay as they are."""

from __future__ import annotations

import os
import re
from pathlib import Path

from outgrow.errors import Misuse, TopologyError
from outgrow.topology import Topology, parse

_STAGE = re.compile(
    r"""^(?P<before>[ \t]*(?:stage|"stage"|'stage')[ \t]*=[ \t]*)(?P<value>"[^"\n]*"|'[^'\n]*'|\d+)""",
    re.MULTILINE,
)
_SECTION = re.compile(r"^\s*\[", re.MULTILINE)


def require_settable(path: Path, stage: str) -> None:
    """Raises Misuse when outgrow.toml would be wrong at that stage, before anything else is done for it."""
    try:
        after = parse(
            with_stage(path.read_text(encoding="utf-8"), stage), source=path.name, environment=os.environ
        )
    except TopologyError as error:
        raise Misuse(
            f'with stage = "{stage}" this outgrow.toml would be wrong: {error.message}',
            hint="a growth changes its stage alone: make the file right for both stages first. "
            "Where [database] names a file, stop the fleet, move the file to the default place "
            "(.outgrow/data/NAME.db), and remove the line",
        ) from error
    _require_stage(after, stage)


def _require_stage(after: Topology, stage: str) -> None:
    if after.stage != stage:
        raise Misuse(
            "the stage in this outgrow.toml cannot be changed",
            hint='write stage = "..." on a line of its own',
        )


def set_stage(path: Path, stage: str) -> None:
    """Write the stage. The file is replaced whole, or not at all."""
    before = path.read_text(encoding="utf-8")
    after = with_stage(before, stage)
    if after == before:
        return
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(after)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(path.stat().st_mode & 0o777)
    temporary.replace(path)


def with_stage(text: str, stage: str) -> str:
    """The text with its stage changed, or said in front where it did not say one."""
    section = _SECTION.search(text)
    head, rest = (text[: section.start()], text[section.start() :]) if section else (text, "")
    changed, count = _STAGE.subn(lambda match: f'{match["before"]}"{stage}"', head, count=1)
    return f"{changed}{rest}" if count else f'stage = "{stage}"\n{text}'

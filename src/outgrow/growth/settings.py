"""The one line of outgrow.toml that a growth changes. A person's comments and order stay as they are."""

from __future__ import annotations

import os
import re
from pathlib import Path

_STAGE = re.compile(r"^(?P<before>stage\s*=\s*)(?P<value>\"[^\"]*\"|'[^']*'|\d+)", re.MULTILINE)
_SECTION = re.compile(r"^\s*\[", re.MULTILINE)


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

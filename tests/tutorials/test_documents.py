"""Documents show what is so: tutorials hold the code of examples/, line by line, and links lead somewhere."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from outgrow.engines import Placement
from outgrow.topology import Topology
from tests.support.source import ROOT

DOCUMENTS = sorted(
    str(path.relative_to(ROOT)) for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md")
)
BLOCK = re.compile(r"^```\w+ (?P<file>\S+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block that says after its language which file it is a piece of."""


def pieces(document: str, *, whole: bool = False) -> dict[str, list[str]]:
    """What is shown of each file: its lines, or whole blocks."""
    found: dict[str, list[str]] = defaultdict(list)
    for match in BLOCK.finditer(document):
        found[match["file"]] += [match["code"]] if whole else lines(match["code"])
    return found


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize("framework", ["fastapi", "litestar"])
def test_the_pieces_in_the_document_make_the_files(framework: str) -> None:
    example = ROOT / "examples" / f"tutorial_{framework}"
    found = pieces((ROOT / "docs" / f"tutorial-{framework}.md").read_text())
    files = {
        str(path.relative_to(example)): path
        for path in example.rglob("*")
        if path.is_file() and path.suffix in (".py", ".toml") and ".outgrow" not in path.parts
    }
    assert set(found) == set(files)
    for name, path in files.items():
        assert found[name] == lines(path.read_text()), name


def test_the_cache_is_explained_by_what_the_example_does() -> None:
    found = pieces((ROOT / "docs" / "tutorial-cache.md").read_text(), whole=True)
    assert len(found) >= 6
    for name, shown in found.items():
        code = (ROOT / "examples" / "conduit" / "conduit" / name).read_text()
        assert [each for each in shown if each not in code] == [], name


def test_the_engine_in_the_guide_is_one() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    names: dict[str, Any] = {"__name__": "guide"}
    found = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (code,) = (each for each in found if "class Nats" in each)
    exec(code, names)
    place = Placement(application=Path("/app"), state=Path("/app/.outgrow"), host="127.0.0.1")
    (workload,) = names["Nats"](Topology(), place).workloads()
    assert "127.0.0.1" in workload.argv


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_files_lead_somewhere(document: str) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []

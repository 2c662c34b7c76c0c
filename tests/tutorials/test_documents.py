"""The code in docs/tutorial-*.md is the code of examples/: the same lines, in the same order, all of them."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from tests.support.source import ROOT

BLOCK = re.compile(r"^```\w+ (?P<file>\S+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block that says after its language which file it is a piece of."""


def pieces(document: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for match in BLOCK.finditer(document):
        found[match["file"]] += lines(match["code"])
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

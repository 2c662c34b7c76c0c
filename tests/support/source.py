"""Outgrow's own source, read as syntax: for tests of the house rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "outgrow"
TEMPLATE = SOURCE / "cli" / "template"
"""Files for a new application: data to Outgrow, not part of its code."""


class Import(NamedTuple):
    """That `importer` imports `imported`, at the given line of `path`."""

    importer: str
    imported: str
    path: Path
    line: int


def files() -> Iterator[Path]:
    for path in sorted(SOURCE.rglob("*.py")):
        if not path.is_relative_to(TEMPLATE):
            yield path


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in files()}


def imports() -> Iterator[Import]:
    """Every import that runs, wherever it stands; those under TYPE_CHECKING never do."""
    for path in files():
        importer = module_name(path)
        for node in _running(ast.parse(path.read_text())):
            for imported in _imported(node):
                yield Import(importer, imported, path.relative_to(SOURCE), getattr(node, "lineno", 0))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _running(other)
        else:
            yield from _running(child)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom) and node.module:
        assert node.level == 0, "absolute imports only"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in MODULES else node.module

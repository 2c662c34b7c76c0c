"""Rules for every text file of the repository."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.source import ROOT, SOURCE, files

FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", "scripts")
SUFFIXES = {".py", ".md", ".toml", ".json", ".sh", ".yml", ".yaml", ".cfg", ".html", ".css", ".js"}
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X:", "Not" + "ImplementedError")
FUNCTION_LINES_MAX = 80


def texts() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.suffix in SUFFIXES)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and ".outgrow" not in path.parts:
                yield path


@pytest.mark.parametrize("mark", UNFINISHED)
def test_nothing_is_left_unfinished(mark: str) -> None:
    assert [str(path.relative_to(ROOT)) for path in texts() if mark in path.read_text()] == []


def test_no_text_knows_where_it_was_written() -> None:
    place = str(ROOT)
    if len(ROOT.parts) < 3:
        pytest.skip("this checkout's path is too short to be looked for")
    assert [str(path.relative_to(ROOT)) for path in texts() if place in path.read_text()] == []


def test_lines_end_cleanly() -> None:
    wrong = []
    for path in texts():
        text = path.read_text()
        if "\r" in text or ("\t" in text and path.suffix == ".py") or (text and not text.endswith("\n")):
            wrong.append(str(path.relative_to(ROOT)))
        wrong += [
            f"{path.relative_to(ROOT)}:{n}"
            for n, line in enumerate(text.splitlines(), 1)
            if line != line.rstrip()
        ]
    assert wrong == []


def test_functions_are_small() -> None:
    long = [
        f"{path.relative_to(SOURCE)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_asserts_in_the_code_never_guard_against_input() -> None:
    """`python -O` removes them: an assert with a call that does something would lose it."""
    allowed = {"isinstance", "len", "issubclass", "callable", "all", "any", "set"}
    wrong = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assert):
                calls = [ast.unparse(each.func) for each in ast.walk(node.test) if isinstance(each, ast.Call)]
                wrong += [
                    f"{path.relative_to(SOURCE)}:{node.lineno}: {call}"
                    for call in calls
                    if call not in allowed
                ]
    assert wrong == []

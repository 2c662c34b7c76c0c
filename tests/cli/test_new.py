"""`outgrow new`: a small application that runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from outgrow.cli.new import NAME, name_of
from tests.cli.conftest import fails, run


def test_writes_an_application(tmp_path: Path) -> None:
    outcome = run("new", "Hello-World", cwd=tmp_path)
    directory = tmp_path / "Hello-World"
    assert outcome.code == 0 and "outgrow up Hello-World" in outcome.out
    names = sorted(str(each.relative_to(directory)) for each in directory.rglob("*") if each.is_file())
    assert names == [".gitignore", "README.md", "app.py", "migrations/versions/0001_notes.py", "outgrow.toml"]
    assert ".outgrow/" in (directory / ".gitignore").read_text().splitlines()
    assert 'name = "hello_world"' in (directory / "outgrow.toml").read_text()
    assert not [each for each in directory.rglob("*") if each.is_file() and NAME in each.read_text()]
    for source in directory.rglob("*.py"):
        ast.parse(source.read_text())


def test_as_json(tmp_path: Path) -> None:
    document = run("new", "hello", "--json", cwd=tmp_path).document
    assert document["directory"] == str(tmp_path / "hello") and "app.py" in document["files"]


def test_a_directory_in_use_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "thesis.txt" in fails("new", tmp_path, code=2)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_fresh_repository_is_as_good_as_empty(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("mine")
    assert run("new", tmp_path).code == 0
    assert (tmp_path / "README.md").read_text() == "mine" and (tmp_path / "app.py").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("")
    assert "is a file" in fails("new", tmp_path / "hello", code=2)
    assert "cannot be made" in fails("new", tmp_path / "hello" / "deeper", code=1)


def test_an_unwritable_place() -> None:
    assert "/proc/hello cannot be made" in fails("new", "/proc/hello", code=1)


@pytest.mark.parametrize(
    ("directory", "name"), [("shop", "shop"), ("My Shop!", "my_shop"), ("2048", "app_2048"), ("___", "app")]
)
def test_the_name_is_one_that_a_database_takes(directory: str, name: str) -> None:
    assert name_of(directory) == name

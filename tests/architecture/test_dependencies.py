"""docs/dependencies.md, pyproject.toml and requirements.lock name the same packages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator

from tests.support.source import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCUMENT = (ROOT / "docs" / "dependencies.md").read_text()
LOCK = (ROOT / "requirements.lock").read_text()


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return match[0].lower()


def names(requirements: Iterable[object]) -> Iterator[str]:
    """The packages; not Outgrow's own extras, nor groups that include others."""
    found = (name_of(each) for each in requirements if isinstance(each, str))
    yield from (name for name in found if name != "outgrow")


def declared() -> set[str]:
    project = PROJECT["project"]
    lists = [PROJECT["build-system"]["requires"], project["dependencies"]]
    lists += [*project["optional-dependencies"].values(), *PROJECT["dependency-groups"].values()]
    return {name for requirements in lists for name in names(requirements)}


def test_every_dependency_has_its_line_and_no_line_is_left_over() -> None:
    described = re.findall(r"^\| `([\w.-]+)` \|", DOCUMENT, re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) == declared()


def test_every_dependency_is_locked_with_hashes_and_no_host_is_named() -> None:
    locked = dict(re.findall(r"^([\w.-]+)==.*((?:\n    --hash=sha256:[0-9a-f]{64}.*)+)", LOCK, re.MULTILINE))
    assert declared() <= set(locked)
    assert re.findall(r"^[\w.-]+==", LOCK, re.MULTILINE) == [f"{name}==" for name in locked]
    assert "://" not in LOCK
    assert "index" not in LOCK

"""The set-up scripts, where they must refuse: they say what is wrong and what to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.source import ROOT

BASH = "/bin/bash"


def refused(script: str, *arguments: str, **variables: str) -> str:
    """What it said when it gave up."""
    done = subprocess.run(
        [BASH, str(ROOT / "scripts" / script), *arguments],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("outgrow: ")
    return done.stderr


def program(path: Path, text: str) -> str:
    path.write_text(f"#!{BASH}\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    said = refused("setup.sh", PYTHON="python-of-the-past", VENV=str(tmp_path))
    assert "python-of-the-past was not found" in said
    assert "apt-get install python3" in said


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = program(tmp_path / "python", '[ "$1" != -V ] || { echo Python 3.9.2; exit 0; }; exit 1')
    said = refused("setup.sh", PYTHON=old, VENV=str(tmp_path))
    assert "Python 3.9.2" in said
    assert "make setup PYTHON=" in said


def test_a_lock_that_cannot_be_installed_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = program(tmp_path / "bin" / "python", '[[ "$*" != *"pip install"* ]]')
    said = refused("setup.sh", PYTHON=python, VENV=str(tmp_path))
    assert "PIP_INDEX_URL" in said


@pytest.mark.parametrize("present", [False, True])
def test_a_debian_package_that_cannot_be_installed(tmp_path: Path, present: bool) -> None:
    if present:
        program(tmp_path / "apt-get", "exit 100")
        program(tmp_path / "id", "echo 0")
        program(tmp_path / "env", 'exec /usr/bin/env "$@"')
    said = refused("debian.sh", "no-such-program=its-package", PATH=str(tmp_path))
    assert "apt-get install its-package" in said
    assert ("update failed" if present else "no apt-get") in said


def test_nothing_is_installed_when_nothing_is_missing() -> None:
    command = [BASH, str(ROOT / "scripts" / "debian.sh"), "bash=bash"]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=60, check=True)
    assert done.stdout + done.stderr == b""

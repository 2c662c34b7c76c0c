"""The real command in a process of its own, as a person or a script calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.support.ports import free_port

COMMAND = (sys.executable, "-m", "outgrow.cli")
PATIENCE_S = 30.0
MINIMAL_APP = """\
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""

MINIMAL_TOPOLOGY = """\
[dashboard]
enabled = false

[application]
name = "minimal"
app = "app:app"
"""


class Outcome(NamedTuple):
    """How a call of the command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The only line of JSON."""
        return msgspec.json.decode(self.out)

    @property
    def events(self) -> list[Any]:
        """All lines of JSON."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OUTGROW_")}
    return {**kept, **changes}


def run(
    *arguments: str | Path, cwd: Path | None = None, timeout_s: float = 60.0, **variables: str
) -> Outcome:
    """Call the command and wait for its end. Its output never holds a traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)


def fails(*arguments: str | Path, code: int, cwd: Path | None = None) -> str:
    """Call the command, which must fail so; returns what it said, which must say what to do."""
    outcome = run(*arguments, cwd=cwd)
    assert outcome.code == code, outcome
    before, mark, said = f"\n{outcome.err}".rpartition("\nerror: ")
    assert mark and "error: " not in before, outcome.err
    return said


def wait_until(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def post(url: str, document: object) -> dict[str, str]:
    request = urllib.request.Request(url, msgspec.json.encode(document), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        assert response.status == 201
        return msgspec.json.decode(response.read(), type=dict[str, str])


def get(url: str) -> dict[str, list[dict[str, object]]]:
    with urllib.request.urlopen(url, timeout=5) as response:
        return msgspec.json.decode(response.read(), type=dict[str, list[dict[str, object]]])


def fleet_processes(directory: Path) -> list[int]:
    """Processes that run in this directory."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")).is_relative_to(directory):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


class Foreground:
    """`outgrow up` as somebody runs it in a terminal window."""

    def __init__(self, directory: Path, *arguments: str, port: int | None = None, **variables: str) -> None:
        self.port = port if port is not None else free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = directory.parent / f"{directory.name}.output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "up", str(directory), "--port", str(self.port), *arguments],
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_said(self, text: str) -> None:
        def said() -> bool:
            assert self.process.poll() is None, self.said
            return text in self.said

        wait_until(said, f"{text!r} in\n{self.said}")

    def wait_ready(self) -> None:
        self.wait_said("Ctrl-C stops it")
        assert answers(f"{self.url}/health")

    def interrupt(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What `outgrow new` makes."""
    directory = tmp_path / "hello"
    assert run("new", directory).code == 0
    return directory


@pytest.fixture
def application(made: Path) -> Path:
    """The same without a dashboard: one process less to wait for."""
    with (made / "outgrow.toml").open("a") as file:
        file.write("\n[dashboard]\nenabled = false\n")
    return made


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """The least that runs: no migrations, no Outgrow in the code, no dashboard."""
    directory = tmp_path / "minimal"
    directory.mkdir()
    (directory / "app.py").write_text(MINIMAL_APP)
    (directory / "outgrow.toml").write_text(MINIMAL_TOPOLOGY)
    return directory


@pytest.fixture
def up() -> Iterator[Callable[..., Foreground]]:
    """Runs `outgrow up DIR` in the foreground, and ends it after the test."""
    started: list[Foreground] = []

    def start(directory: Path, *arguments: str, port: int | None = None, **variables: str) -> Foreground:
        started.append(Foreground(directory, *arguments, port=port, **variables))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def detached() -> Iterator[Callable[..., Outcome]]:
    """Runs `outgrow up DIR --detach`, and `outgrow down` after the test."""
    directories: list[Path] = []

    def start(directory: Path, *arguments: str) -> Outcome:
        directories.append(directory)
        return run("up", directory, "--detach", *arguments)

    yield start
    for directory in directories:
        run("down", directory)

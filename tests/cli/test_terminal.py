"""What only a terminal gets: colours and lines that change; and what happens when it goes away."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, PATIENCE_S, environment, fleet_processes, run, wait_until

ESCAPE = "\x1b["


class Terminal:
    """A command in a terminal of its own, its controlling one, as an emulator runs it."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.master, slave = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *COMMAND, *arguments],
            env=environment(TERM="xterm", **variables),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    def read(self) -> bool:
        """Take what is there; False at the end."""
        if not select.select([self.master], [], [], 0.1)[0]:
            return True
        try:
            self.text += os.read(self.master, 65536).decode("utf-8", "replace")
        except OSError:
            return False
        return True

    def wait_said(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.text:
            assert self.read() and time.monotonic() < deadline, self.text

    def wait_end(self) -> int:
        while self.read():
            pass
        return self.process.wait(PATIENCE_S)

    def hang_up(self) -> None:
        """The window is closed."""
        os.close(self.master)
        self.master = -1

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)
        if self.master >= 0:
            os.close(self.master)


@contextmanager
def terminal(*arguments: str, **variables: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments, **variables)
    try:
        yield opened
    finally:
        opened.end()


@pytest.mark.parametrize("command", ["--help", "doctor"])
def test_colours_on_a_terminal_alone(command: str, tmp_path: Path) -> None:
    with terminal(command) as shown:
        assert shown.wait_end() == 0 and ESCAPE in shown.text
    with terminal(command, NO_COLOR="1") as plain:
        assert plain.wait_end() == 0 and ESCAPE not in plain.text
    assert ESCAPE not in run(command, cwd=tmp_path).out


def test_up_shows_progress_and_ctrl_c_stops_it(minimal: Path) -> None:
    with terminal("up", str(minimal), "--port", "0") as window:
        window.wait_said("Ctrl-C stops it")
        assert "✓" in window.text and "\r" in window.text and ESCAPE in window.text
        os.write(window.master, b"\x03")
        os.write(window.master, b"\x03")
        assert window.wait_end() == 0
        assert "stopped; the data is kept" in window.text and "Traceback" not in window.text
    assert not fleet_processes(minimal)


def test_json_has_no_colour_on_a_terminal_either() -> None:
    with terminal("doctor", "--json") as window:
        assert window.wait_end() in (0, 1) and ESCAPE not in window.text


def test_a_closed_window_stops_everything(minimal: Path) -> None:
    with terminal("up", str(minimal), "--port", "0") as window:
        window.wait_said("Ctrl-C stops it")
        window.hang_up()
        wait_until(lambda: window.process.poll() is not None, "the end after the hang-up")
        assert window.process.returncode == 0
    assert not fleet_processes(minimal)


def test_a_reader_that_goes_away_does_not_stop_a_fleet(minimal: Path) -> None:
    line = [*COMMAND, "up", str(minimal), "--port", "0", "--json"]
    fleet = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert fleet.stdout is not None
        while b'"event":"ready"' not in fleet.stdout.readline():
            assert fleet.poll() is None
        fleet.stdout.close()
        pid = run("status", minimal, "--json").document["nodes"][-1]["pid"]
        os.kill(pid, signal.SIGKILL)

        def again() -> bool:
            app = run("status", minimal, "--json").document["nodes"][-1]
            return bool(app["state"] == "ready" and app["pid"] != pid)

        wait_until(again, "the application, started again")
        assert run("down", minimal).code == 0 and fleet.wait(PATIENCE_S) == 0
    finally:
        fleet.terminate()
        fleet.wait(PATIENCE_S)

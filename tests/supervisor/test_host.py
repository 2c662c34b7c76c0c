"""An emulated host: what runs in it ends with it, and that can be proven."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.cluster import fencer
from outgrow.engines.patroni.patroni import HOST
from tests.support.fleets import alive, wait_until

FREE = "import os, subprocess, sys, time; subprocess.Popen([{sleep!r}, '300'], start_new_session=True); "
WAITS = FREE + "print('up', flush=True); time.sleep(300)"


def start(program: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", "-S", str(HOST), sys.executable, "-c", program.format(sleep="sleep")]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture
def host() -> Iterator[subprocess.Popen[str]]:
    process = start(WAITS)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def members(host: subprocess.Popen[str]) -> list[int]:
    space = fencer.namespace(host.pid)
    assert space is not None
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and fencer._may_be_in(space, pid)]


def test_it_ends_with_whatever_was_set_free_in_it(host: subprocess.Popen[str]) -> None:
    space, inside = fencer.namespace(host.pid), members(host)
    assert space is not None and len(inside) == 3 and not fencer.empty(space)
    host.terminate()
    assert host.wait(10) == 128 + signal.SIGTERM
    assert fencer.empty(space) and not any(map(alive, inside))


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["its first process", "its init", "its program"])
def test_none_of_them_survives_another(host: subprocess.Popen[str], victim: int) -> None:
    space, inside = fencer.namespace(host.pid), members(host)
    assert space is not None
    os.kill([host.pid, *sorted(inside)][victim], signal.SIGKILL)
    host.wait(10)
    assert fencer.prove_empty(space)
    wait_until(lambda: not any(map(alive, inside)), "the end of all of them")


def test_a_host_that_stands_still_is_not_dead(host: subprocess.Popen[str]) -> None:
    space, inside = fencer.namespace(host.pid), members(host)
    assert space is not None
    for pid in inside:
        os.kill(pid, signal.SIGSTOP)
    assert not fencer.empty(space)


@pytest.mark.parametrize(("program", "code"), [("raise SystemExit(78)", 78), ("pass", 0)])
def test_its_exit_code_is_that_of_its_program(program: str, code: int) -> None:
    with start(program) as process:
        assert process.wait(10) == code


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", str(HOST), str(tmp_path / "nothing")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 127 and "No such file" in done.stderr


def test_this_process_is_in_no_host() -> None:
    assert fencer.namespace(os.getpid()) is None

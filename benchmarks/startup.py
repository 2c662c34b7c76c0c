"""`outgrow up` at stage 1: from the command to the first answered request, and the memory of the fleet."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine, report, versions
from benchmarks.servers import ROOT, free_port

OUTGROW = Path(sys.executable).with_name("outgrow")
TIMEOUT_S = 60.0
LEFT_OUT = shutil.ignore_patterns(".outgrow", "__pycache__")
SECRET = {"APP_SECRET": "of the benchmarks, and of nothing else at all"}


@dataclass
class Figures:
    """Round by round: seconds until the first answer, and bytes (PSS) of all processes after it."""

    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def run(*, quick: bool = False) -> str:
    """The table, as Markdown."""
    rounds = 2 if quick else 9
    applications = {"the example": ("/api/tags", _copy_example), "outgrow new": ("/", _new_application)}
    figures = {name: Figures() for name in applications}
    for name, (path, make) in applications.items():
        with versions.scratch() as scratch:
            directory = make(Path(scratch))
            _one(directory, path)  # the first start migrates and compiles: the cache is warm after it
            for _ in range(rounds):
                seconds, memory = _one(directory, path)
                figures[name].seconds.append(seconds)
                figures[name].memory.append(memory)
    rows = [
        [
            name,
            report.spread(found.seconds),
            report.spread([each / 2**20 for each in found.memory], ".0f"),
        ]
        for name, found in figures.items()
    ]
    example = figures["the example"]
    lines = [
        report.verdict(
            "`outgrow up` to the first answer", report.median(example.seconds), 2.0, at_least=False, unit=" s"
        ),
        report.verdict(
            "memory of the whole fleet",
            report.median(example.memory) / 2**20,
            150.0,
            at_least=False,
            unit=" MB",
        ),
    ]
    head = ["application, stage 1", "seconds to the first answer", "MB of all processes (PSS)"]
    return f"{report.table(head, rows)}\n\n" + "\n".join(lines)


def _copy_example(scratch: Path) -> Path:
    return Path(shutil.copytree(versions.EXAMPLE, scratch / "conduit", ignore=LEFT_OUT))


def _new_application(scratch: Path) -> Path:
    subprocess.run([OUTGROW, "new", str(scratch / "notes")], check=True, capture_output=True, cwd=ROOT)
    return scratch / "notes"


def _one(directory: Path, path: str) -> tuple[float, float]:
    """One start. It is ended as a person ends it: with Ctrl-C."""
    port = free_port()
    started = time.perf_counter()
    process = subprocess.Popen(
        [OUTGROW, "up", str(directory), "--port", str(port)],
        env={**os.environ, **SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_for_answer(f"http://127.0.0.1:{port}{path}", process)
        seconds = time.perf_counter() - started
        return seconds, machine.pss_bytes([process.pid])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_for_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{url}: {error}") from None
        except OSError:
            if process.poll() is not None:
                assert process.stdout is not None
                raise SystemExit(f"outgrow up: {process.stdout.read().decode()}") from None
            if time.perf_counter() > deadline:
                raise SystemExit(f"{url} did not answer within {TIMEOUT_S:.0f} s") from None
            time.sleep(0.005)

"""Growing under load: `python -m benchmarks.growth [--quick] [--data FOLDER]`.

Conduit with 100,000 articles and 500,000 comments at stage 1; 400 requests a second of its own scenario,
of which 100 write; meanwhile `outgrow grow separate-database`, then `outgrow shrink`. Printed are what
the command says (how long writes were held, the checksum of all data) and what the clients have seen.

The data takes minutes to make: with `--data FOLDER` it is made there once and copied for each run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop
from msgspec.structs import replace

from benchmarks.report import table
from outgrow.load.generator import run as load
from outgrow.load.parse import parse_file
from outgrow.load.profile import Scenario
from outgrow.load.report import Report
from outgrow.load.target import resolve
from tests.support.postgres import free_port

ROOT = Path(__file__).parent.parent
RATE = 400
MORE_WRITES = 3.8
"""The scenario writes with a tenth of its requests, and reads most of that back: so it is a quarter."""

FULL = ("--users", "2000", "--articles", "100000", "--comments", "500000", "--favorites", "100000")
QUICK = ("--users", "200", "--articles", "2000", "--comments", "10000")
QUIET_S = 5.0


class Move(NamedTuple):
    """A command that moved the data, and what the clients saw meanwhile."""

    name: str
    seconds: float
    facts: dict[str, object]
    report: Report


def run(*, quick: bool, data: Path | None = None) -> str:
    """Both moves, as Markdown."""
    folder = Path(tempfile.mkdtemp(prefix="outgrow-growth-"))
    directory = folder / "conduit"
    try:
        _seed(data or folder / "seeded", QUICK if quick else FULL)
        shutil.copytree(data or folder / "seeded", directory)
        port = free_port()
        _command(directory, "up", str(directory), "--detach", "--port", str(port))
        url = f"http://127.0.0.1:{port}"
        moves = [
            _move(directory, url, "grow", "separate-database"),
            _move(directory, url, "shrink"),
        ]
        return _as_table(moves)
    finally:
        _command(directory, "down", str(directory))
        shutil.rmtree(folder)


def _seed(directory: Path, amounts: tuple[str, ...]) -> None:
    """The example with its data, at rest; what is there already stays."""
    if directory.exists():
        return
    making = directory.with_name(f"{directory.name}.making")
    shutil.copytree(ROOT / "examples" / "conduit", making, ignore=shutil.ignore_patterns(".outgrow"))
    _command(making, "up", str(making), "--detach", "--port", str(free_port()))
    try:
        _command(making, "seed", "--", *amounts)
    finally:
        _command(making, "down", str(making))
    making.rename(directory)


def _move(directory: Path, url: str, *arguments: str) -> Move:
    reports: list[Report] = []
    scenario = _scenario()
    loading = threading.Thread(target=lambda: reports.append(_loaded(scenario, url, ended)))
    ended = threading.Event()
    loading.start()
    time.sleep(scenario.warmup + QUIET_S)
    began = time.monotonic()
    last = _command(directory, *arguments, "--json").splitlines()[-1]
    seconds = time.monotonic() - began
    time.sleep(QUIET_S)
    ended.set()
    loading.join()
    return Move(arguments[0], seconds, msgspec.json.decode(last)["facts"], reports[0])


def _scenario() -> Scenario:
    """Conduit's own, with more writes."""
    made = parse_file(ROOT / "examples" / "conduit" / "load.toml").steady(RATE, 3600)
    requests = {
        name: each if each.method == "GET" else replace(each, weight=each.weight * MORE_WRITES)
        for name, each in made.request.items()
    }
    journeys = {name: replace(each, weight=each.weight * MORE_WRITES) for name, each in made.journey.items()}
    return replace(made, request=requests, journey=journeys)


def _loaded(scenario: Scenario, url: str, ended: threading.Event) -> Report:
    async def work() -> Report:
        import asyncio

        stop = asyncio.Event()
        watching = asyncio.ensure_future(asyncio.to_thread(ended.wait))
        watching.add_done_callback(lambda _: stop.set())
        return await load(scenario, resolve(url), stop=stop)

    return uvloop.run(work())


def _command(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "outgrow.cli", *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"outgrow {' '.join(arguments)} failed:\n{done.stdout}")
    return done.stdout


def _as_table(moves: list[Move]) -> str:
    head = ["", "took s", "writes held s", "requests", "errors", "violations", "p50 ms", "p99 ms", "max ms"]
    rows = [
        [
            each.name,
            f"{each.seconds:.1f}",
            f"{each.facts['held_s']}",
            f"{each.report.answered:,}",
            f"{each.report.failed + each.report.not_sent:,}",
            f"{each.report.violations:,} in {each.report.checked:,}",
            f"{each.report.latency.percentiles['50']:.1f}",
            f"{each.report.latency.percentiles['99']:.1f}",
            f"{each.report.latency.maximum:.0f}",
        ]
        for each in moves
    ]
    notes = [
        f"{each.name}: held for {each.facts['held_for']}; checksum {each.facts['checksum']}; "
        f"errors {each.report.errors}; the first {QUIET_S:g} s, before it: {_before(each.report)}"
        for each in moves
    ]
    return "\n\n".join((table(head, rows), *notes))


def _before(report: Report) -> str:
    """How it was before the move began: what the machine can do at all."""
    seconds = [each for each in report.series if 0 <= each.second < QUIET_S]
    return f"{sum(each.answered for each in seconds) / max(len(seconds), 1):.0f} answers/s"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Grow and shrink the example under load.")
    parser.add_argument("--quick", action="store_true", help="little data, to see that everything works")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the data is made once and kept")
    arguments = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    print(run(quick=arguments.quick, data=arguments.data), flush=True)


if __name__ == "__main__":
    main()

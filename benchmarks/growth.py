"""Growing under load: `python -m benchmarks.growth [--quick] [--data FOLDER] [--write]`.

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
from typing import NamedTuple, cast

import msgspec
import uvloop
from msgspec.structs import replace

from benchmarks import report as documents
from benchmarks.report import table
from outgrow.load.generator import run as load
from outgrow.load.parse import parse_file
from outgrow.load.profile import Scenario
from outgrow.load.report import Report
from outgrow.load.target import resolve
from tests.support.ports import free_port

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
        command(directory, "up", str(directory), "--detach", "--port", str(port))
        url = f"http://127.0.0.1:{port}"
        moves = [
            _move(directory, url, "grow", "separate-database"),
            _move(directory, url, "shrink"),
        ]
        return _as_table(moves)
    finally:
        command(directory, "down", str(directory))
        shutil.rmtree(folder)


def _seed(directory: Path, amounts: tuple[str, ...]) -> None:
    """The example with its data, at rest; what is there already stays."""
    if directory.exists():
        return
    making = directory.with_name(f"{directory.name}.making")
    shutil.copytree(ROOT / "examples" / "conduit", making, ignore=shutil.ignore_patterns(".outgrow"))
    command(making, "up", str(making), "--detach", "--port", str(free_port()))
    try:
        command(making, "seed", "--", *amounts)
    finally:
        command(making, "down", str(making))
    making.rename(directory)


def _move(directory: Path, url: str, *arguments: str) -> Move:
    reports: list[Report] = []
    scenario = _scenario()
    loading = threading.Thread(target=lambda: reports.append(_loaded(scenario, url, ended)))
    ended = threading.Event()
    loading.start()
    time.sleep(scenario.warmup + QUIET_S)
    began = time.monotonic()
    last = command(directory, *arguments, "--json").splitlines()[-1]
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


def command(directory: Path, *arguments: str) -> str:
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
    head = ["", "took s", "writes held s", "requests", "writes/s", "reads/s", "errors", "violations"]
    head += ["p50 ms", "p99 ms", "max ms"]
    rows = [
        [
            each.name,
            f"{each.seconds:.1f}",
            f"{each.facts['held_s']}",
            f"{each.report.answered:,}",
            *(f"{rate:.0f}" for rate in _rates(each.report)),
            f"{each.report.failed + each.report.not_sent:,}",
            f"{each.report.violations:,} in {each.report.checked:,}",
            f"{each.report.latency.percentiles['50']:.1f}",
            f"{each.report.latency.percentiles['99']:.1f}",
            f"{each.report.latency.maximum:.0f}",
        ]
        for each in moves
    ]
    return "\n\n".join((table(head, rows), "\n".join(map(_note, moves))))


def _note(move: Move) -> str:
    held_for = cast("dict[str, float]", move.facts["held_for"])
    parts = ", ".join(f"{part} {seconds * 1000:.0f} ms" for part, seconds in held_for.items())
    errors = "".join(f"; {count:,} {kind}" for kind, count in move.report.errors.items())
    return (
        f"- {move.name}: held for {parts}; all data the same, checksum {move.facts['checksum']}; "
        f"{_before(move.report)} in the {QUIET_S:g} s before{errors}"
    )


def _rates(report: Report) -> tuple[float, float]:
    """Writes and reads a second, answered as they should be."""
    methods = {name: each.method for name, each in _scenario().request.items()}
    counts = {"read": 0, "write": 0}
    for each in report.requests:
        counts["read" if methods[each.name] == "GET" else "write"] += each.latency.count
    seconds = report.seconds - report.warmup
    return counts["write"] / seconds, counts["read"] / seconds


def _before(report: Report) -> str:
    """How it was before the move began: what the machine can do at all."""
    seconds = [each for each in report.series if 0 <= each.second < QUIET_S]
    return f"{sum(each.answered for each in seconds) / max(len(seconds), 1):.0f} answers/s"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Grow and shrink the example under load.")
    parser.add_argument("--quick", action="store_true", help="little data, to see that everything works")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the data is made once and kept")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    text = run(quick=arguments.quick, data=arguments.data)
    print(text, flush=True)
    if arguments.write:
        documents.write("growth", text, quick=arguments.quick, pinned=False)


if __name__ == "__main__":
    main()

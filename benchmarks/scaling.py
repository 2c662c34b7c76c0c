"""More servers, more throughput: `python -m benchmarks.scaling [--cpu 0.1] [--quick] [--write]`.

The example at stage 4, its cache off, each application server an emulated host with a tenth of a core,
or whatever `--cpu` says: eight of them, the balancer and the database must fit into the machine.
The running fleet is scaled to 1, 2, 4 and 8 servers in turns, and each time readers without a token ask
for lists, articles and tags as fast as they are answered: the peak rate, as a multiple of one server's.
Balancer, database and load have the rest of the machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop

from benchmarks import report
from benchmarks.client import Load, Session, closed_loop
from benchmarks.mix import Request
from outgrow.cluster.status import Status
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent
SERVERS = (1, 2, 4, 8)
CONNECTIONS_EACH = 6
"""So that each server always has something to do, and its answers do not wait for seconds."""

DATA = (
    "--users",
    "500",
    "--articles",
    "5000",
    "--comments",
    "5000",
    "--favorites",
    "10000",
    "--follows",
    "2000",
)
SETTLE_S = 1.0
AT_LEAST = 0.95


def run(*, quick: bool, cpu: float) -> str:
    """The table, as Markdown."""
    rounds, seconds = (1, 3.0) if quick else (5, 5.0)
    rates: dict[int, list[float]] = defaultdict(list)
    with _fleet(cpu) as (directory, port):
        session = Session(_requests(port), {})
        for number in range(rounds):
            for servers in SERVERS if number % 2 == 0 else SERVERS[::-1]:
                _outgrow(directory, "scale", f"app={servers}")
                time.sleep(SETTLE_S)
                rates[servers].append(_peak(port, session, seconds, servers))
                print(f"  round {number + 1}: {servers} servers: {rates[servers][-1]:.0f}/s", flush=True)
    return _as_table(rates, cpu)


def _peak(port: int, session: Session, seconds: float, servers: int) -> float:
    async def measure() -> Load:
        connections = CONNECTIONS_EACH * servers
        await closed_loop(port, session, 1.0, connections)  # its new processes compile their statements
        return await closed_loop(port, session, seconds, connections)

    return uvloop.run(measure()).rate


def _as_table(rates: dict[int, list[float]], cpu: float) -> str:
    rows = []
    for servers in SERVERS:
        multiples = [mine / one for mine, one in zip(rates[servers], rates[1], strict=True)]
        linear = [each / servers for each in multiples]
        rows.append(
            [
                str(servers),
                report.spread(rates[servers], ".0f"),
                report.spread(multiples),
                report.spread(linear),
            ]
        )
    least = min(
        report.median([mine / one / servers for mine, one in zip(rates[servers], rates[1], strict=True)])
        for servers in SERVERS
    )
    head = [f"servers of {cpu:g} cores", "requests/s", "times one server", "of linear"]
    verdict = report.verdict("least share of linear", least, AT_LEAST, at_least=True)
    return f"{report.table(head, rows)}\n\n{verdict}"


def _requests(port: int) -> list[Request]:
    """Lists, articles and tags in the proportion of the example's mix."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/articles?limit=100") as answer:
        slugs = re.findall(r'"slug":"([^"]+)"', answer.read().decode())
    paths = [f"/api/articles?limit=20&offset={20 * page}" for page in range(35)]
    paths += [f"/api/articles/{slug}" for slug in slugs[:30]]
    paths += ["/api/tags"] * 10
    # Neighbours in time are of different kinds: 31 and 75 have no common factor.
    mixed = [paths[31 * place % len(paths)] for place in range(len(paths))]
    return [Request("read", "GET", path) for path in mixed]


@contextmanager
def _fleet(cpu: float) -> Iterator[tuple[Path, int]]:
    """The example at stage 4 with one capped server; afterwards everything is gone."""
    folder = Path(tempfile.mkdtemp(prefix="outgrow-benchmark-"))
    directory = folder / "conduit"
    ignore = shutil.ignore_patterns(".outgrow", "__pycache__")
    shutil.copytree(ROOT / "examples" / "conduit", directory, ignore=ignore)
    _configure(directory / "outgrow.toml", cpu)
    port = free_port()
    try:
        _outgrow(directory, "up", str(directory), "--detach", "--port", str(port))
        _outgrow(directory, "seed", "--", *DATA)
        _require_capped(directory)
        yield directory, port
    finally:
        _outgrow(directory, "down", str(directory))
        shutil.rmtree(folder)


def _configure(path: Path, cpu: float) -> None:
    text = path.read_text().replace('stage = "single-server"', 'stage = "load-balancer"')
    text = text.replace("[application]", f"[application]\nservers = 1\ncpu = {cpu}", 1)
    text = re.sub(r"(?m)^\[cache\]\n", '[cache]\nengine = "off"\n', text)
    path.write_text(f"{text}\n[telemetry]\naccess_log = false\n\n[dashboard]\nenabled = false\n")


def _require_capped(directory: Path) -> None:
    status = msgspec.json.decode(_outgrow(directory, "status", "--json"), type=Status)
    capped = [each for each in status.warnings if "CPU" in each]
    if capped:
        raise SystemExit(f"hosts cannot be capped on this machine: {capped[0]}")


def _outgrow(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "outgrow.cli", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"outgrow {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--cpu", type=float, default=0.1, help="cores of each server")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    given = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    found = run(quick=given.quick, cpu=given.cpu)
    print(found)
    if given.write:
        report.write("scaling", found, quick=given.quick)

"""Whether the dashboard's memory stays flat: python -m benchmarks.dashboard_soak [--minutes 30] [--rate 1000]

The RealWorld example is loaded by `outgrow load` while two pages are open. Every ten seconds the
dashboard's memory is looked at; the first part, in which its stores fill, does not count. Exit code 1
when the memory of the rest has grown by more than a twentieth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from outgrow import cluster
from outgrow.cluster.measure import used

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "outgrow.cli")
PAGES = 2
LOOK_EVERY_S = 10.0
FILLING_SHARE = 0.45
"""At 1,000 requests a second the store of slow requests is full after some twelve minutes."""

GROWTH_MAX = 0.05


class Look(NamedTuple):
    """The dashboard at one moment."""

    at_s: float
    memory: int
    cpu_s: float


@contextmanager
def running(port: int) -> Iterator[Path]:
    """The example with some data, in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="outgrow-soak-") as folder:
        place = Path(folder) / "conduit"
        shutil.copytree(ROOT / "examples" / "conduit", place, ignore=shutil.ignore_patterns(".outgrow"))
        call("up", place, "--detach", "--port", str(port))
        try:
            call("seed", place, "--", "--users", "100", "--articles", "1000", "--comments", "2000")
            yield place
        finally:
            call("down", place)


def call(*arguments: object) -> None:
    subprocess.run([*COMMAND, *map(str, arguments)], check=True)


async def read_page(url: str) -> None:
    """An open page: reads every snapshot."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /api/stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
    while await reader.read(65536):
        pass


async def watch(place: Path, seconds: float) -> list[Look]:
    """A look every ten seconds while the load goes on."""
    status = await cluster.status(place)
    pid = next(node.pid for node in status.nodes if node.name == "dashboard")
    assert pid is not None and status.dashboard is not None
    pages = [asyncio.create_task(read_page(status.dashboard)) for _ in range(PAGES)]
    began, looks = time.monotonic(), list[Look]()
    while (at_s := time.monotonic() - began) < seconds:
        usage = await asyncio.to_thread(used, pid)
        if usage is None:
            raise SystemExit("the dashboard has ended")
        looks.append(Look(at_s, usage.memory, usage.cpu_s))
        print(f"{at_s:6.0f} s   {usage.memory / 2**20:6.1f} MB", flush=True)
        await asyncio.sleep(LOOK_EVERY_S)
    for page in pages:
        page.cancel()
    return looks


def verdict(looks: list[Look]) -> int:
    """What came of it; the exit code."""
    counted = looks[int(len(looks) * FILLING_SHARE) :]
    half = len(counted) // 2
    first, last = (statistics.mean(look.memory for look in part) for part in (counted[:half], counted[half:]))
    growth = last / first - 1
    cpu = (looks[-1].cpu_s - looks[0].cpu_s) / (looks[-1].at_s - looks[0].at_s)
    most = max(look.memory for look in looks) / 2**20
    print(
        f"memory {first / 2**20:.1f} MB in the first half, {last / 2**20:.1f} MB in the second "
        f"({growth:+.1%}), at most {most:.1f} MB; CPU {cpu:.2%} of a core with {PAGES} pages open"
    )
    return 1 if growth > GROWTH_MAX else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Load the example and watch the dashboard's memory.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--port", type=int, default=8650)
    options = parser.parse_args()
    seconds = options.minutes * 60
    with running(options.port) as place:
        load = ["load", place, "--rate", options.rate, "--duration", int(seconds) + 20]
        process = subprocess.Popen([*COMMAND, *map(str, load)], stderr=subprocess.DEVNULL)
        try:
            looks = asyncio.run(watch(place, seconds))
        finally:
            process.terminate()
            process.wait(30)
        kept = asyncio.run(kept_requests(place))
        print(f"slow and failed requests kept: {kept:,}")
    return verdict(looks)


async def kept_requests(place: Path) -> int:
    from urllib.request import urlopen

    status = await cluster.status(place)
    answer = await asyncio.to_thread(lambda: urlopen(f"{status.dashboard}/api/snapshot", timeout=5).read())
    return int(json.loads(answer)["requests"]["kept"])


if __name__ == "__main__":
    sys.exit(main())

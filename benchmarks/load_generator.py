"""The load generator itself: `python -m benchmarks.load_generator [--quick]`.

    mix         the example's scenario at 3,500 requests a second from one core, against the RealWorld API
                in memory: is the rate kept, how late do requests leave, what does one cost?
    histogram   the same static answers at the same number of requests a second, measured by wrk and by us

wrk is a closed loop: a connection asks again when it is answered. Paced by pauses of random length it makes
a moderate load in which hardly anything queues. Only there can a closed and an open loop agree, and they
have to: from sending to the answer, which is what wrk measures and what we call service.

Servers and generators have real-time priority where the system allows it (root): else the tenth of a
millisecond of a static answer is mostly what other programs of the machine do just then.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import uvloop
from msgspec.structs import replace

from benchmarks import machine
from benchmarks.report import table
from outgrow.load.generator import run as load
from outgrow.load.parse import parse, parse_file
from outgrow.load.profile import Scenario
from outgrow.load.report import Report
from outgrow.load.target import resolve
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent
RATE = 3_500
STATIC_RATE = 400
"""Moderate: on a small machine either generator takes some of what the server would have."""
CONNECTIONS = 50
ROUNDS = 5
PERCENTS = (50, 90, 99)
AGREE_WITHIN = 0.10
STATIC = """
arrivals = "poisson"
warmup = 1
users = 1
[request.static]
weight = 1
path = "/"
signed_in = 0
"""
PACED = """
math.randomseed(7)
function delay() return math.floor(-{mean_ms} * math.log(1 - math.random()) + 0.5) end
function done(summary, latency, requests)
  io.write(string.format("took %d %d", summary.requests, summary.duration))
  for _, p in ipairs({{50, 90, 99}}) do io.write(string.format(" %d", latency:percentile(p))) end
  io.write("\\n")
end
"""


def run(*, quick: bool) -> str:
    """Both parts, as Markdown."""
    seconds = 3.0 if quick else 5.0
    rounds = 2 if quick else ROUNDS
    priority = "real-time priority" if _undisturbed() else "no priority over other programs"
    with machine.pinned(machine.client_core()):
        return "\n\n".join(
            (
                _mix(seconds, rounds),
                _histogram("at once", 0.0, seconds, rounds),
                _histogram("after 4 ms (median)", 4.0, seconds, rounds),
                f"With {priority}.",
            )
        )


def _undisturbed() -> bool:
    """Go before all other programs, as do the children; whether this user may."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        return False
    return True


def _mix(seconds: float, rounds: int) -> str:
    scenario = parse_file(ROOT / "examples" / "conduit" / "load.toml").steady(RATE, seconds)
    with _server("tests.load.realworld") as url:
        reports = [_loaded(replace(scenario, warmup=1.0), url) for _ in range(rounds)]
    rows = [
        [
            f"{each.rate_intended:,.0f}",
            f"{each.rate_achieved:,.0f}",
            f"{each.late.percentiles['50']:.3f}",
            f"{each.late.percentiles['99']:.3f}",
            f"{each.late.maximum:.1f}",
            f"{each.cpu:.0%}",
            f"{each.cpu * each.seconds / max(each.answered + each.failed, 1) * 1e6:.0f}",
            f"{each.failed + each.not_sent:,}",
            f"{each.violations:,} in {each.checked:,}",
        ]
        for each in reports
    ]
    head = [
        "intended/s",
        "right answers/s",
        "late p50 ms",
        "p99",
        "max",
        "core",
        "us a request",
        "errors",
        "violations",
    ]
    kept = median(each.rate_achieved / each.rate_intended for each in reports)
    return (
        f"**RealWorld mix from one core**, {seconds:g} s each round\n\n{table(head, rows)}\n\n"
        f"Answered of what was intended: {kept:.1%} (median)."
    )


def _histogram(what: str, delay_ms: float, seconds: float, rounds: int) -> str:
    """The rounds alternate, so that what else the machine does meets both alike."""
    theirs: list[tuple[float, list[float]]] = []
    ours: list[Report] = []
    with _server("benchmarks.static_server", str(delay_ms)) as url:
        for _ in range(rounds):
            theirs.append(_wrk(url, seconds, delay_ms))
            rate = theirs[-1][0]
            ours.append(_loaded(parse(STATIC).steady(rate, seconds), url))
    rows = [_compared(percent, theirs, ours) for percent in PERCENTS]
    wrk, outgrow = median(rate for rate, _ in theirs), median(each.rate_achieved for each in ours)
    head = ["", "wrk ms", "service ms", "latency ms", "service against wrk"]
    return f"**Static answer {what}**: wrk {wrk:,.0f}/s, outgrow {outgrow:,.0f}/s\n\n{table(head, rows)}"


def _compared(percent: int, theirs: list[tuple[float, list[float]]], ours: list[Report]) -> list[str]:
    place = PERCENTS.index(percent)
    wrk = median(values[place] for _, values in theirs)
    service = median(each.service.percentiles[str(percent)] for each in ours)
    latency = median(each.latency.percentiles[str(percent)] for each in ours)
    verdict = "agrees" if abs(service / wrk - 1) <= AGREE_WITHIN else "DIFFERS"
    return [
        f"p{percent}",
        f"{wrk:.3f}",
        f"{service:.3f}",
        f"{latency:.3f}",
        f"{service / wrk - 1:+.1%} {verdict}",
    ]


def _loaded(scenario: Scenario, url: str) -> Report:
    return uvloop.run(load(scenario, resolve(url)))


def _wrk(url: str, seconds: float, delay_ms: float) -> tuple[float, list[float]]:
    """Requests a second, and the percentiles in milliseconds."""
    pause_ms = max(CONNECTIONS / STATIC_RATE * 1000 - delay_ms * 1.3, 1.0)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(PACED.format(mean_ms=pause_ms))
        script.flush()
        arguments = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}", "-s", script.name, url]
        said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    found = re.search(r"took (.*)", said)
    assert found is not None, said
    requests, micros, *values = (float(word) for word in found[1].split())
    return requests / micros * 1e6, [value / 1000 for value in values]


@contextmanager
def _server(module: str, *arguments: str) -> Iterator[str]:
    """On the servers' core."""
    port = free_port()
    with machine.pinned(machine.server_core()):
        process = subprocess.Popen([sys.executable, "-m", module, str(port), *arguments], cwd=ROOT)
    try:
        asyncio.run(_listening(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def _listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit(f"the server on port {port} does not answer")


if __name__ == "__main__":
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    print(run(quick="--quick" in sys.argv))

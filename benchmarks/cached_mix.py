"""What the shared cache is worth: `python -m benchmarks cached_mix [--quick] [--write]`.

The example's fleet at stage 5 (balancer, two servers, a primary and its replicas) under its own load
(load.toml: of 100 requests 10 write, and most writes are read back by who made them); then the same fleet
after `outgrow grow cache`, and after `outgrow shrink` again, in turns. Counted are the statements that its
servers have the database run.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks import report
from benchmarks.growth import ROOT, command
from outgrow.advisor import measures
from outgrow.advisor.caches import OUTCOMES
from outgrow.advisor.measures import FOUND, Distribution
from outgrow.load.generator import run as load
from outgrow.load.parse import parse_file
from outgrow.load.report import Report
from outgrow.load.target import resolve
from tests.support.ports import free_port

RATE, SECONDS, WARM_S, ROUNDS = 80.0, 60.0, 240.0, 1
QUICK_S = 8.0
AMOUNTS = ("--users", "300", "--articles", "3000", "--comments", "10000", "--favorites", "10000")
HOT = {
    "article": "/api/articles/{slug}",
    "newest": "/api/articles",
    "tags": "/api/tags",
    "feed": "/api/articles/feed",
}
"""What most people read: in the scenario, and in the servers' metrics."""


class Counts(NamedTuple):
    """Of all servers since they began: statements by their verb, reads of the caches by how they ended, and
    how long requests took inside the servers by their route."""

    statements: Counter[str]
    reads: Counter[str]
    took: dict[str, Distribution]

    def since(self, before: Counts) -> Counts:
        """What is new."""
        took = {name: each.since(before.took[name]) for name, each in self.took.items()}
        return Counts(self.statements - before.statements, self.reads - before.reads, took)


class Turn(NamedTuple):
    """One run at one stage."""

    stage: str
    load: Report
    counts: Counts


def run(*, quick: bool) -> str:
    """The table, as Markdown."""
    folder = Path(tempfile.mkdtemp(prefix="outgrow-cached-"))
    directory = folder / "conduit"
    shutil.copytree(ROOT / "examples" / "conduit", directory, ignore=shutil.ignore_patterns(".outgrow"))
    shutil.copy(directory / "stages" / "05.toml", directory / "outgrow.toml")
    turns, seconds = [], (QUICK_S, QUICK_S) if quick else (WARM_S, SECONDS)
    try:
        port = free_port()
        command(directory, "up", str(directory), "--detach", "--port", str(port))
        command(directory, "seed", "--", *AMOUNTS)
        command(directory, "cache", "flush", "--all")  # what was looked at before there was anything
        for number in range(1 if quick else ROUNDS):
            if number:
                command(directory, "shrink")
            turns.append(_turn("5", directory, port, *seconds))
            command(directory, "grow", "cache")
            turns.append(_turn("6", directory, port, *seconds))
    finally:
        command(directory, "down", str(directory))
        shutil.rmtree(folder)
    return _as_table(turns)


def _turn(stage: str, directory: Path, port: int, warm_s: float, seconds: float) -> Turn:
    scenario = parse_file(ROOT / "examples" / "conduit" / "load.toml")
    scenario = msgspec.structs.replace(scenario, warmup=warm_s).steady(RATE, seconds)
    status = msgspec.json.decode(command(directory, "status", "--json"))
    servers = [node["own"] for node in status["nodes"] if node["tier"] == "application" and node.get("own")]
    begun, before = threading.Event(), []

    def count() -> None:
        """When all users have signed up and the caches are warm."""
        begun.wait()
        time.sleep(warm_s)
        before.append(_counted(servers))

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    target = resolve(f"http://127.0.0.1:{port}")
    done = uvloop.run(load(scenario, target, observe=lambda observation: begun.set()))
    counting.join()
    counts = _counted(servers).since(before[0])
    print(f"  stage {stage}: {done.answered:,} answers, {counts.statements}, {counts.reads}", flush=True)
    return Turn(stage, done, counts)


def _counted(servers: list[str]) -> Counts:
    statements: Counter[str] = Counter()
    reads: Counter[str] = Counter()
    took = dict.fromkeys(HOT, Distribution())
    for address in servers:
        asked = urllib.request.Request(f"http://{address}/metrics", headers={"accept": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            figures = measures.read(answer.read())
        for (_, label), values in figures["outgrow_db_query_seconds"].series:
            statements[label.partition(" ")[0]] += int(sum(values[:-1]))
        for (_, outcome), values in figures["outgrow_cache_reads_total"].series:
            reads[outcome] += int(values[0])
        requests = figures["outgrow_http_request_seconds"]
        for name, route in HOT.items():
            rows = [values for (of,), values in requests.series if of == route]
            took[name] = took[name].plus(measures.distribution(requests, rows))
    return Counts(statements, reads, took)


def _as_table(turns: list[Turn]) -> str:
    rows: list[list[str]] = []

    def row(name: str, of: Callable[[Turn], float], form: str = ",.2f", *, ratio: bool = True) -> list[float]:
        """Its medians at stage 5 and 6."""
        at = [statistics.median(of(turn) for turn in turns if turn.stage == stage) for stage in ("5", "6")]
        times = f"{at[0] / at[1]:.1f}" if ratio and at[1] else ""
        rows.append([name, *(format(each, form) for each in at), times])
        return at

    row("statements that read, for a request", lambda turn: _per_request(turn, "SELECT"))
    all_at = row("all statements, for a request", _per_request)
    inside = [row(f"`{name}` inside the server, p50 ms", partial(_inside, name)) for name in HOT]
    for name in HOT:
        row(f"`{name}` as its caller sees it, p50 ms", partial(_p50, name))
    rate_at = row("hit rate", lambda turn: _share(turn, *FOUND), ".1%", ratio=False)
    row("reads that pass the cache by", lambda turn: _share(turn, "session"), ".1%", ratio=False)
    row("stale or failed answers", lambda turn: turn.load.violations + turn.load.failed, ",.0f", ratio=False)
    faster = statistics.median(before / after for before, after in inside)
    verdicts = (
        report.verdict("fewer statements", 100 * (1 - all_at[1] / all_at[0]), 90, at_least=True, unit="%"),
        report.verdict("these reads inside the server, p50, times faster", faster, 5, at_least=True),
        report.verdict("hit rate at stage 6", 100 * rate_at[1], 90, at_least=True, unit="%"),
    )
    head = ["", "stage 5", "stage 6", "ratio"]
    return "\n".join([report.table(head, rows), "", *verdicts])


def _per_request(turn: Turn, verb: str = "") -> float:
    statements = turn.counts.statements
    return (statements[verb] if verb else statements.total()) / max(1, turn.load.answered)


def _inside(name: str, turn: Turn) -> float:
    return (turn.counts.took[name].quantile(0.5) or 0.0) * 1000


def _p50(name: str, turn: Turn) -> float:
    [named] = [named for named in turn.load.requests if named.name == name]
    return named.latency.percentiles["50"]


def _share(turn: Turn, *outcomes: str) -> float:
    reads = turn.counts.reads
    return sum(reads[outcome] for outcome in outcomes) / max(1, sum(reads[each] for each in OUTCOMES))

"""Outgrow's own cost of a request: the same application with its middleware and without.

Both are served by the same server (outgrow.runtime.serve) with the same settings; without the
middleware there is no scope, no bookmark, no metrics, no access log. CPU is that of the server process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks import machine, report, versions
from benchmarks.bench import Bench, Pair
from benchmarks.bench import Plan as ExamplePlan
from benchmarks.client import Session, closed_loop
from benchmarks.data import FULL, make
from benchmarks.example import QUICK
from benchmarks.mix import Request
from benchmarks.servers import ROOT, Application, open_databases
from benchmarks.versions import EXAMPLE_OFF, Version, outgrow_application
from outgrow.runtime.database.migrate import migrate

CONNECTIONS = 16
EXAMPLE = ExamplePlan(rounds=3, warm_up=15.0, warm_up_requests=30_000, turns=6, turn=1.0, latency=0.0)
WITHOUT, WITH, LOGGED = "without", "with, access log off", "with, access log on"


@dataclass(frozen=True)
class Plan:
    """How long and how often. Seconds."""

    rounds: int
    measured: float


@dataclass
class Cost:
    """Of one variant, round by round: requests a second, microseconds of CPU a request."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def run(*, quick: bool = False) -> str:
    """Every table, as Markdown."""
    plan = Plan(rounds=2, measured=0.7) if quick else Plan(rounds=9, measured=2.5)
    with machine.pinned(machine.client_core()):
        small = [_small(path, plan) for path in ("/bytes", "/row")]
        realistic = _example(QUICK if quick else EXAMPLE)
    return "\n\n".join((*small, realistic))


def _small(path: str, plan: Plan) -> str:
    """The application of two routes: all variants run at once, and take turns."""
    costs = {name: Cost() for name in (WITHOUT, WITH, LOGGED)}
    with versions.scratch() as directory:
        url = f"sqlite:///{directory}/app.db"
        asyncio.run(migrate(url, None))
        for number in range(plan.rounds):
            turn = number % len(costs)
            for name in [*costs][turn:] + [*costs][:turn]:
                with _application(name, url, directory, path) as application:
                    uvloop.run(_one(application, path, plan, costs[name]))
    table = _table(f"{path}", costs)
    added = report.median(_added(costs, WITH))
    line = report.verdict("CPU that Outgrow adds", added, 60.0, at_least=False, unit=" us")
    return f"{table}\n\n{line}"


def _application(name: str, url: str, directory: str, path: str) -> Application:
    application = outgrow_application(
        url,
        Path(directory),
        reference="benchmarks.overhead_app:app",
        place=ROOT,
        access_log=name == LOGGED,
        probe=path,
    )
    application.environment["BENCHMARK_INSTALL"] = "no" if name == WITHOUT else "yes"
    return application


async def _one(application: Application, path: str, plan: Plan, cost: Cost) -> None:
    session = Session([Request("get", "GET", path)], {})
    await closed_loop(application.port, session, 0.3, CONNECTIONS)
    before = application.cpu_seconds()
    load = await closed_loop(application.port, session, plan.measured, CONNECTIONS)
    cost.rates.append(load.rate)
    cost.cpu.append(1e6 * (application.cpu_seconds() - before) / load.requests)


def _added(costs: Mapping[str, Cost], name: str) -> list[float]:
    return [one - other for one, other in zip(costs[name].cpu, costs[WITHOUT].cpu, strict=True)]


def _table(what: str, costs: Mapping[str, Cost]) -> str:
    rows = [
        [
            name,
            report.spread(cost.cpu, ".1f"),
            report.spread(_added(costs, name), ".1f"),
            report.spread([a / b for a, b in zip(cost.rates, costs[WITHOUT].rates, strict=True)]),
        ]
        for name, cost in costs.items()
    ]
    return report.table([what, "CPU us a request", "more than without", "rate to that without"], rows)


def _example(plan: ExamplePlan) -> str:
    """The example under its mix, on SQLite, where the database takes least."""
    pairs = {cache: (_variant(cache, bare=True), _variant(cache, bare=False)) for cache in (False, True)}
    databases = open_databases("sqlite")
    try:
        bench = Bench(databases, make(FULL), plan, [version for pair in pairs.values() for version in pair])
        asyncio.run(versions.load_all(databases.create, bench.data, [EXAMPLE_OFF]))
        found = {cache: Pair() for cache in pairs}
        for _ in range(plan.rounds):
            for cache, (bare, whole) in pairs.items():
                bench.compare(bare, whole, found[cache], bench.requests)
    finally:
        databases.close()
    rows = [_example_row(f"cache {'on' if cache else 'off'}", pair) for cache, pair in found.items()]
    head = ["the example's mix on SQLite", "CPU us without", "CPU us with", "rate to that without"]
    share = report.median(found[False].ratios)
    line = report.verdict(
        "throughput that Outgrow takes from the example, cache off",
        100 * (1 - share),
        10.0,
        at_least=False,
        unit="%",
    )
    return f"{report.table(head, rows)}\n\n{line}"


def _variant(cache: bool, *, bare: bool) -> Version:
    reference = "benchmarks.conduit.bare:app" if bare else "conduit.app:app"
    start: Callable[[str, Path], Application] = lambda url, directory: outgrow_application(  # noqa: E731
        url, directory, reference=reference, cache=cache
    )
    name = f"cache {'on' if cache else 'off'}, {WITHOUT if bare else WITH}"
    return Version(name, EXAMPLE_OFF.schema, EXAMPLE_OFF.load, start)


def _example_row(name: str, pair: Pair) -> list[str]:
    bare, whole = pair.first.application, pair.second.application
    return [name, report.spread(bare, ".0f"), report.spread(whole, ".0f"), report.spread(pair.ratios)]

"""The example's mix one kind of request at a time: where the time goes. No part of the targets."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import machine, mix, report
from benchmarks.bench import Bench, Pair, Peak, Plan
from benchmarks.data import Data, make
from benchmarks.example import ENGINES, QUICK
from benchmarks.servers import open_databases
from benchmarks.versions import EXAMPLE_OFF, EXAMPLE_ON, SKETCH

PLAN = Plan(rounds=3, warm_up=6.0, warm_up_requests=6_000, turns=3, turn=1.0, latency=0.0)


def run(*, quick: bool = False, engines: Sequence[str] = ENGINES) -> str:
    """A table for each engine, as Markdown."""
    plan = QUICK if quick else PLAN
    data = make(plan.size)
    return "\n\n".join(_engine(engine, data, plan) for engine in engines)


def _engine(engine: str, data: Data, plan: Plan) -> str:
    databases = open_databases(engine)
    rows = []
    try:
        with machine.pinned(machine.client_core()):
            bench = Bench(databases, data, plan, (SKETCH, EXAMPLE_OFF, EXAMPLE_ON))
            bench.prepare()
            for kind in mix.KINDS:
                rows.append(_row(bench, kind))
                print(f"  {engine}: {' | '.join(rows[-1])}", flush=True)
    finally:
        databases.close()
    costs = [f"{version.name}: us app + db" for version in (SKETCH, EXAMPLE_OFF, EXAMPLE_ON)]
    return f"### {engine}\n\n{report.table(['request', *costs, 'off to sketch', 'on to sketch'], rows)}"


def _row(bench: Bench, kind: str) -> list[str]:
    requests = [each for each in bench.requests if each.kind == kind]
    off, on = Pair(), Pair()
    for _ in range(bench.plan.rounds):
        bench.compare(SKETCH, EXAMPLE_OFF, off, requests)
        bench.compare(SKETCH, EXAMPLE_ON, on, requests)
    costs = [_cost(peak) for peak in (off.first, off.second, on.second)]
    return [kind, *costs, report.spread(off.ratios), report.spread(on.ratios)]


def _cost(peak: Peak) -> str:
    return f"{report.median(peak.application):.0f} + {report.median(peak.database):.0f}"

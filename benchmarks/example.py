"""The example against a hand-written sketch and against a conventional version of the same endpoints."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import machine, mix, report
from benchmarks.bench import Bench, Pair, Plan
from benchmarks.client import Load, percentile
from benchmarks.data import Data, make
from benchmarks.servers import open_databases
from benchmarks.versions import CONVENTIONAL, EXAMPLE_OFF, EXAMPLE_ON, SKETCH, VERSIONS, Version

ENGINES = ("postgres", "sqlite")
PLAN = Plan(rounds=5, warm_up=15.0, warm_up_requests=30_000, turns=6, turn=1.0, latency=8.0)
QUICK = Plan(rounds=1, warm_up=4.0, warm_up_requests=4_000, turns=2, turn=1.0, latency=2.0)
LATENCY_RUNS = 3

PAIRS = ((SKETCH, EXAMPLE_OFF), (SKETCH, EXAMPLE_ON), (CONVENTIONAL, EXAMPLE_OFF))
OFF, ON, USUAL = PAIRS
TARGETS = {OFF: 0.85, ON: 2.5, USUAL: 5.0}
P99_MS = 20.0

Pairs = dict[tuple[Version, Version], Pair]
Latencies = list[tuple[Version, float, list[Load]]]


def run(*, quick: bool = False, engines: Sequence[str] = ENGINES) -> str:
    """Every table, as Markdown."""
    plan = QUICK if quick else PLAN
    data = make(plan.size)
    return "\n\n".join(_engine(engine, data, plan) for engine in engines)


def _engine(engine: str, data: Data, plan: Plan) -> str:
    databases = open_databases(engine)
    try:
        with machine.pinned(machine.client_core()):
            bench = Bench(databases, data, plan, VERSIONS)
            equal = bench.prepare()
            print(f"{engine}: {equal} answers are equal in all versions", flush=True)
            pairs = _pairs(bench)
            return _section(engine, equal, bench, pairs, _latencies(bench, pairs))
    finally:
        databases.close()


def _pairs(bench: Bench) -> Pairs:
    pairs = {versions: Pair() for versions in PAIRS}
    for number in range(bench.plan.rounds):
        for (first, second), pair in pairs.items():
            bench.compare(first, second, pair, bench.requests)
            print(
                f"  round {number + 1}: {second.name} to {first.name}: {pair.ratios[-1]:.2f}"
                f" ({pair.second.rates[-1]:.0f}/s to {pair.first.rates[-1]:.0f}/s),"
                f" by CPU {pair.cpu_ratios()[-1]:.2f}",
                flush=True,
            )
    return pairs


def _latencies(bench: Bench, pairs: Pairs) -> Latencies:
    half = report.median(pairs[OFF].second.rates) / 2
    cached = report.median(pairs[ON].second.rates) / 2
    wanted = [(SKETCH, half), (EXAMPLE_OFF, half), (EXAMPLE_ON, half), (EXAMPLE_ON, cached)]
    return [
        (version, rate, [bench.latency(version, rate) for _ in range(min(LATENCY_RUNS, bench.plan.rounds))])
        for version, rate in wanted
    ]


def _section(engine: str, equal: int, bench: Bench, pairs: Pairs, latencies: Latencies) -> str:
    name = {"postgres": "PostgreSQL", "sqlite": "SQLite"}[engine]
    shares = mix.shares(bench.requests)
    return "\n\n".join(
        (
            f"### {name}",
            f"{equal} answers compared, all equal. {shares['with a token']:.0f}% of requests have a token.",
            _pair_table(pairs),
            _latency_table(latencies),
            "\n".join(_verdicts(pairs, latencies)),
        )
    )


def _pair_table(pairs: Pairs) -> str:
    head = ["", "requests/s", "CPU us: app + db", "of the other", "CPU us: app + db", "ratio", "ratio of CPU"]
    rows = []
    for (first, second), pair in pairs.items():
        sides = [
            cell
            for peak in (pair.second, pair.first)
            for cell in (
                report.spread(peak.rates, ".0f"),
                f"{report.median(peak.application):.0f} + {report.median(peak.database):.0f}",
            )
        ]
        ratios = [report.spread(pair.ratios), report.spread(pair.cpu_ratios())]
        rows.append([f"{second.name}, to the {first.name}", *sides, *ratios])
    return report.table(head, rows)


def _latency_table(latencies: Latencies) -> str:
    head = ["version", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "the client's own p99 lateness, ms"]
    rows = []
    for version, rate, loads in latencies:
        figures = [_milliseconds(loads, share) for share in (0.5, 0.99, 0.999)]
        late = report.spread([1000 * percentile(load.late, 0.99) for load in loads], ".2f")
        rows.append([version.name, f"{rate:.0f}", *(report.spread(each, ".1f") for each in figures), late])
    return report.table(head, rows)


def _milliseconds(loads: Sequence[Load], share: float) -> list[float]:
    return [1000 * percentile(load.latencies, share) for load in loads]


def _verdicts(pairs: Pairs, latencies: Latencies) -> list[str]:
    def p99(version: Version) -> float:
        """At half of its own peak rate: the last of its runs."""
        loads = [found for each, _, found in latencies if each is version][-1]
        return report.median(_milliseconds(loads, 0.99))

    return [
        *(
            report.verdict(
                f"{second.name}, to the {first.name}",
                report.median(pairs[first, second].ratios),
                target,
                at_least=True,
            )
            for (first, second), target in TARGETS.items()
        ),
        *(
            report.verdict(
                f"p99 at half of its peak, {each.name}", p99(each), P99_MS, at_least=False, unit=" ms"
            )
            for each in (EXAMPLE_OFF, EXAMPLE_ON)
        ),
    ]

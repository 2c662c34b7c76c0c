"""The example against a hand-written sketch and against a conventional version of the same endpoints.

Each measurement has a fresh copy of the data and a fresh process, warmed up first. Rounds are
interleaved and every ratio is taken within a round, so that a machine that slows down slows all.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks import equality, machine, mix, report, versions
from benchmarks.client import Load, Session, closed_loop, open_loop, percentile
from benchmarks.data import FULL, Data, Size, make
from benchmarks.mix import Request
from benchmarks.servers import Application, Databases, open_databases
from benchmarks.versions import CONVENTIONAL, EXAMPLE_OFF, EXAMPLE_ON, SKETCH, VERSIONS, Version

REQUESTS = 30_000
ENGINES = ("postgres", "sqlite")


@dataclass(frozen=True)
class Plan:
    """How long and how often. Seconds.

    The warm-up ends after so many requests, or so many seconds for those that cannot make them.
    """

    rounds: int
    warm_up: float
    warm_up_requests: int
    measured: float
    size: Size = FULL


PLAN = Plan(rounds=3, warm_up=15.0, warm_up_requests=REQUESTS, measured=8.0)
QUICK = Plan(rounds=1, warm_up=4.0, warm_up_requests=4_000, measured=2.0)


@dataclass
class Peak:
    """Of one version: the rate and the CPU of each round, microseconds a request."""

    rates: list[float] = field(default_factory=list)
    application: list[float] = field(default_factory=list)
    database: list[float] = field(default_factory=list)


class Bench:
    """One engine's databases, filled and compared, ready to be measured."""

    def __init__(self, databases: Databases, data: Data, plan: Plan, compared: Sequence[Version]) -> None:
        self.databases = databases
        self.data = data
        self.plan = plan
        self.versions = compared
        self.requests = mix.make(data, REQUESTS)

    def prepare(self) -> int:
        """Fill the databases and compare the answers; returns how many answers were equal."""
        asyncio.run(versions.load_all(self.databases.create, self.data, self.versions))
        found = {}
        for version in self.versions:
            with versions.scratch() as directory, self._start(version, directory) as application:
                found[version.name] = equality.answers(application.port, self.data)
        return equality.compare(found)

    def peak(self, version: Version, into: Peak, requests: Sequence[Request]) -> None:
        """One measurement of the peak rate on a fresh copy of the data."""
        with versions.scratch() as directory, self._start(version, directory) as application:
            load, cpu, database = uvloop.run(self._peak(application, requests))
        into.rates.append(load.rate)
        into.application.append(1e6 * cpu / load.requests)
        into.database.append(1e6 * database / load.requests)

    def latency(self, version: Version, rate: float) -> Load:
        """One run at a constant rate on a fresh copy of the data."""
        with versions.scratch() as directory, self._start(version, directory) as application:
            return uvloop.run(self._latency(application, rate))

    def _start(self, version: Version, directory: str) -> Application:
        return version.application(self.databases.copy(version.schema), Path(directory))

    async def _peak(self, application: Application, requests: Sequence[Request]) -> tuple[Load, float, float]:
        session = Session(requests, equality.tokens(application.port, self.data))
        await closed_loop(application.port, session, self.plan.warm_up, limit=self.plan.warm_up_requests)
        cpu, database = application.cpu_seconds(), self.databases.cpu_seconds()
        load = await closed_loop(application.port, session, self.plan.measured)
        return load, application.cpu_seconds() - cpu, self.databases.cpu_seconds() - database

    async def _latency(self, application: Application, rate: float) -> Load:
        session = Session(self.requests, equality.tokens(application.port, self.data))
        await closed_loop(application.port, session, self.plan.warm_up, limit=self.plan.warm_up_requests)
        return await open_loop(application.port, session, rate, self.plan.measured)


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
            peaks = _peaks(bench)
            return _section(engine, equal, bench, peaks, _latencies(bench, peaks))
    finally:
        databases.close()


def _peaks(bench: Bench) -> dict[str, Peak]:
    peaks: dict[str, Peak] = defaultdict(Peak)
    for number in range(bench.plan.rounds):
        turn = number % len(bench.versions)
        for version in (*bench.versions[turn:], *bench.versions[:turn]):
            bench.peak(version, peaks[version.name], bench.requests)
            print(f"  round {number + 1}: {version.name}: {peaks[version.name].rates[-1]:.0f}/s", flush=True)
    return peaks


def _latencies(bench: Bench, peaks: Mapping[str, Peak]) -> list[tuple[Version, float, list[Load]]]:
    half = report.median(peaks[EXAMPLE_OFF.name].rates) / 2
    cached = report.median(peaks[EXAMPLE_ON.name].rates) / 2
    wanted = [(SKETCH, half), (EXAMPLE_OFF, half), (EXAMPLE_ON, half), (EXAMPLE_ON, cached)]
    return [
        (version, rate, [bench.latency(version, rate) for _ in range(min(3, bench.plan.rounds))])
        for version, rate in wanted
    ]


def _section(
    engine: str,
    equal: int,
    bench: Bench,
    peaks: Mapping[str, Peak],
    latencies: Sequence[tuple[Version, float, list[Load]]],
) -> str:
    name = {"postgres": "PostgreSQL", "sqlite": "SQLite"}[engine]
    shares = mix.shares(bench.requests)
    return "\n\n".join(
        (
            f"### {name}",
            f"{equal} answers compared, all equal. {shares['with a token']:.0f}% of requests have a token.",
            _peak_table(bench.versions, peaks),
            _latency_table(latencies),
            "\n".join(_verdicts(peaks, latencies)),
        )
    )


def _peak_table(compared: Sequence[Version], peaks: Mapping[str, Peak]) -> str:
    head = [
        "version",
        "requests/s",
        "times the sketch",
        "times the conventional",
        "CPU us: app",
        "CPU us: db",
    ]
    rows = [
        [
            version.name,
            report.spread(peaks[version.name].rates, ".0f"),
            report.spread(ratios(peaks, version, SKETCH)),
            report.spread(ratios(peaks, version, CONVENTIONAL)),
            report.spread(peaks[version.name].application, ".0f"),
            report.spread(peaks[version.name].database, ".0f"),
        ]
        for version in compared
    ]
    return report.table(head, rows)


def ratios(peaks: Mapping[str, Peak], version: Version, to: Version) -> list[float]:
    """Rate by rate within a round."""
    pairs = zip(peaks[version.name].rates, peaks[to.name].rates, strict=True)
    return [one / other for one, other in pairs]


def _latency_table(latencies: Sequence[tuple[Version, float, list[Load]]]) -> str:
    head = ["version", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "the client's own p99 lateness, ms"]
    rows = []
    for version, rate, loads in latencies:
        figures = [_milliseconds(loads, share) for share in (0.5, 0.99, 0.999)]
        late = report.spread([1000 * percentile(load.late, 0.99) for load in loads], ".2f")
        rows.append([version.name, f"{rate:.0f}", *(report.spread(each, ".1f") for each in figures), late])
    return report.table(head, rows)


def _milliseconds(loads: Sequence[Load], share: float) -> list[float]:
    return [1000 * percentile(load.latencies, share) for load in loads]


def _verdicts(peaks: Mapping[str, Peak], latencies: Sequence[tuple[Version, float, list[Load]]]) -> list[str]:
    def ratio(version: Version, to: Version) -> float:
        return report.median(ratios(peaks, version, to))

    def p99(version: Version) -> float:
        """At half of its own peak rate: the last of its runs."""
        loads = [found for each, _, found in latencies if each is version][-1]
        return report.median(_milliseconds(loads, 0.99))

    return [
        report.verdict("example to sketch, cache off", ratio(EXAMPLE_OFF, SKETCH), 0.85, at_least=True),
        report.verdict("example to sketch, cache on", ratio(EXAMPLE_ON, SKETCH), 2.5, at_least=True),
        report.verdict(
            "example to conventional, cache off", ratio(EXAMPLE_OFF, CONVENTIONAL), 5.0, at_least=True
        ),
        *(
            report.verdict(
                f"p99 at half of its peak, {each.name}", p99(each), 20.0, at_least=False, unit=" ms"
            )
            for each in (EXAMPLE_OFF, EXAMPLE_ON)
        ),
    ]


def run_kinds(*, quick: bool = False, engines: Sequence[str] = ENGINES) -> str:
    """The same, one kind of request at a time: where the time goes. No part of the targets."""
    plan = QUICK if quick else Plan(rounds=3, warm_up=6.0, warm_up_requests=6_000, measured=3.0)
    data = make(plan.size)
    return "\n\n".join(_engine_kinds(engine, data, plan) for engine in engines)


def _engine_kinds(engine: str, data: Data, plan: Plan) -> str:
    databases = open_databases(engine)
    compared = (SKETCH, EXAMPLE_OFF, EXAMPLE_ON)
    rows = []
    try:
        with machine.pinned(machine.client_core()):
            bench = Bench(databases, data, plan, compared)
            bench.prepare()
            for kind in mix.KINDS:
                peaks: dict[str, Peak] = defaultdict(Peak)
                requests = [each for each in bench.requests if each.kind == kind]
                for _ in range(plan.rounds):
                    for version in compared:
                        bench.peak(version, peaks[version.name], requests)
                rows.append(_kind_row(kind, compared, peaks))
                print(f"  {engine}: {' | '.join(rows[-1])}", flush=True)
    finally:
        databases.close()
    head = [
        "request",
        *(f"{version.name}: us app + db" for version in compared),
        "off to sketch",
        "on to sketch",
    ]
    return f"### {engine}\n\n{report.table(head, rows)}"


def _kind_row(kind: str, compared: Sequence[Version], peaks: Mapping[str, Peak]) -> list[str]:
    costs = [
        f"{report.median(peaks[v.name].application):.0f} + {report.median(peaks[v.name].database):.0f}"
        for v in compared
    ]
    shares = [report.spread(ratios(peaks, version, SKETCH)) for version in compared[1:]]
    return [kind, *costs, *shares]

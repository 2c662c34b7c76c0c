"""Two versions against each other: both run at once, and take turns of a second on the servers' core.

A machine that slows down for a while slows both alike, so a turn's ratio says more than two rates that lie
minutes apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks import equality, mix, report, versions
from benchmarks.client import Load, Session, closed_loop, open_loop
from benchmarks.data import FULL, Data, Size
from benchmarks.mix import Request
from benchmarks.servers import Application, Databases
from benchmarks.versions import Version

REQUESTS = 30_000


@dataclass(frozen=True)
class Plan:
    """How long and how often. Seconds.

    The warm-up ends after so many requests, or so many seconds for those that cannot make them. Turns
    and warm-up together last less than an entry lives in the example's cache.
    """

    rounds: int
    warm_up: float
    warm_up_requests: int
    turns: int
    turn: float
    latency: float
    size: Size = FULL


@dataclass
class Peak:
    """Of one version: the rate and the CPU of each round, microseconds a request."""

    rates: list[float] = field(default_factory=list)
    application: list[float] = field(default_factory=list)
    database: list[float] = field(default_factory=list)

    def cpu(self) -> list[float]:
        """Of application and database together."""
        return [sum(both) for both in zip(self.application, self.database, strict=True)]


@dataclass
class Pair:
    """`ratios` are the second one's rate to the first one's, of each round the median of its turns."""

    first: Peak = field(default_factory=Peak)
    second: Peak = field(default_factory=Peak)
    ratios: list[float] = field(default_factory=list)

    def cpu_ratios(self) -> list[float]:
        """How many times less CPU a request of the second one takes, round by round."""
        return [one / other for one, other in zip(self.first.cpu(), self.second.cpu(), strict=True)]


class Side:
    """One of the two, while it runs."""

    def __init__(self, application: Application, databases: Databases, session: Session) -> None:
        self.application = application
        self.databases = databases
        self.session = session
        self.rates: list[float] = []
        self._requests = 0
        self._cpu = self._database = 0.0

    async def take_turn(self, seconds: float) -> None:
        """Be asked as fast as it answers."""
        cpu, database = self.application.cpu_seconds(), self.databases.cpu_seconds()
        load = await closed_loop(self.application.port, self.session, seconds)
        self._cpu += self.application.cpu_seconds() - cpu
        self._database += self.databases.cpu_seconds() - database
        self._requests += load.requests
        self.rates.append(load.rate)

    def tell(self, peak: Peak) -> None:
        """Add this round."""
        peak.rates.append(report.median(self.rates))
        peak.application.append(1e6 * self._cpu / self._requests)
        peak.database.append(1e6 * self._database / self._requests)


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

    def compare(self, first: Version, second: Version, into: Pair, requests: Sequence[Request]) -> None:
        """One round, each on a fresh copy of the data. The second is warmed up last: it may have a cache."""
        with (
            versions.scratch() as here,
            versions.scratch() as there,
            self._start(first, here, "first") as one,
            self._start(second, there, "second") as other,
        ):
            uvloop.run(self._compare(one, other, into, requests))

    def latency(self, version: Version, rate: float) -> Load:
        """One run at a constant rate on a fresh copy of the data."""
        with versions.scratch() as directory, self._start(version, directory) as application:
            return uvloop.run(self._latency(application, rate))

    def _start(self, version: Version, directory: str, name: str = "run") -> Application:
        return version.application(self.databases.copy(version.schema, name), Path(directory))

    async def _compare(
        self, one: Application, other: Application, into: Pair, requests: Sequence[Request]
    ) -> None:
        first, second = [
            Side(each, self.databases, Session(requests, equality.tokens(each.port, self.data)))
            for each in (one, other)
        ]
        for side in (first, second):
            await self._warm_up(side.application, side.session)
        for number in range(self.plan.turns):
            for side in (first, second) if number % 2 else (second, first):
                await side.take_turn(self.plan.turn)
        first.tell(into.first)
        second.tell(into.second)
        turns = zip(first.rates, second.rates, strict=True)
        into.ratios.append(report.median([theirs / rate for rate, theirs in turns]))

    async def _latency(self, application: Application, rate: float) -> Load:
        session = Session(self.requests, equality.tokens(application.port, self.data))
        await self._warm_up(application, session)
        return await open_loop(application.port, session, rate, self.plan.latency)

    async def _warm_up(self, application: Application, session: Session) -> None:
        await closed_loop(application.port, session, self.plan.warm_up, limit=self.plan.warm_up_requests)

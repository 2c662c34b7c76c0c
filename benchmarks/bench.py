"""Two versions against each other: both run at once, and take turns of a second on the servers' core.

A machine that slows down for a while slows both alike, so a turn's ratio says more than two rates that lie
minutes apart. Two neighbouring turns count when the servers had their core nearly for themselves in both:
then they were what limited the rate. A round without enough of them is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks import equality, mix, report, versions
from benchmarks.client import Load, Session, closed_loop, open_loop
from benchmarks.data import FULL, Data, Size
from benchmarks.mix import Request
from benchmarks.servers import Application, Databases
from benchmarks.versions import Version

REQUESTS = 30_000

CORE_SHARE_MIN = 0.6
"""Of a turn's time, spent on the core by the application and its database."""

TURNS_MAX = 3
"""So many times the planned turns are taken to find enough that count: then what a cache holds grows old."""

ATTEMPTS_MAX = 12
"""To make one round."""


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


class Turn(NamedTuple):
    """Requests a second, and seconds of CPU a request."""

    rate: float
    application: float
    database: float

    @property
    def counts(self) -> bool:
        """Whether the servers had their core."""
        return self.rate * (self.application + self.database) >= CORE_SHARE_MIN


class Side:
    """One of the two, while it runs."""

    def __init__(self, application: Application, databases: Databases, session: Session) -> None:
        self.application = application
        self.databases = databases
        self.session = session

    async def take_turn(self, seconds: float) -> Turn:
        """Be asked as fast as it answers."""
        cpu, database = self.application.cpu_seconds(), self.databases.cpu_seconds()
        load = await closed_loop(self.application.port, self.session, seconds)
        cpu, database = self.application.cpu_seconds() - cpu, self.databases.cpu_seconds() - database
        return Turn(load.rate, cpu / load.requests, database / load.requests)


def _tell(turns: Sequence[Turn], peak: Peak) -> None:
    peak.rates.append(report.median([turn.rate for turn in turns]))
    peak.application.append(1e6 * report.median([turn.application for turn in turns]))
    peak.database.append(1e6 * report.median([turn.database for turn in turns]))


class Busy(Exception):
    """The machine had too much else to do."""


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
        """One round. Raises Busy when the machine leaves no core to the servers."""
        for _ in range(ATTEMPTS_MAX):
            turns = self._round(first, second, requests)
            if turns:
                one, other = zip(*turns, strict=True)
                _tell(one, into.first)
                _tell(other, into.second)
                into.ratios.append(report.median([after.rate / before.rate for before, after in turns]))
                return
        raise Busy(f"{second.name} to {first.name}: no quiet turns in {ATTEMPTS_MAX} attempts")

    def _round(self, first: Version, second: Version, requests: Sequence[Request]) -> list[tuple[Turn, Turn]]:
        """Each on a fresh copy of the data. The second is warmed up last: it may have a cache."""
        with (
            versions.scratch() as here,
            versions.scratch() as there,
            self._start(first, here, "first") as one,
            self._start(second, there, "second") as other,
        ):
            return uvloop.run(self._turns(one, other, requests))

    def latency(self, version: Version, rate: float) -> Load:
        """One run at a constant rate on a fresh copy of the data."""
        with versions.scratch() as directory, self._start(version, directory) as application:
            return uvloop.run(self._latency(application, rate))

    def _start(self, version: Version, directory: str, name: str = "run") -> Application:
        return version.application(self.databases.copy(version.schema, name), Path(directory))

    async def _turns(
        self, one: Application, other: Application, requests: Sequence[Request]
    ) -> list[tuple[Turn, Turn]]:
        """As many as planned that count; none when they cannot be had."""
        first, second = [
            Side(each, self.databases, Session(requests, equality.tokens(each.port, self.data)))
            for each in (one, other)
        ]
        for side in (first, second):
            await self._warm_up(side.application, side.session)
        good: list[tuple[Turn, Turn]] = []
        for _ in range(TURNS_MAX * self.plan.turns):
            turns = await first.take_turn(self.plan.turn), await second.take_turn(self.plan.turn)
            if all(turn.counts for turn in turns):
                good.append(turns)
            if len(good) == self.plan.turns:
                return good
        return []

    async def _latency(self, application: Application, rate: float) -> Load:
        session = Session(self.requests, equality.tokens(application.port, self.data))
        await self._warm_up(application, session)
        return await open_loop(application.port, session, rate, self.plan.latency)

    async def _warm_up(self, application: Application, session: Session) -> None:
        await closed_loop(application.port, session, self.plan.warm_up, limit=self.plan.warm_up_requests)

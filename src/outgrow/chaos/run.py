"""Runs a drill: load, calm, the drill itself, settling, then everything that was recorded as one history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from outgrow import cluster
from outgrow.chaos import marks
from outgrow.chaos.drills.drill import Drill, OwnLoad
from outgrow.chaos.faults.left import Left
from outgrow.chaos.history import Attempt, Happening, History
from outgrow.chaos.report import Report, report
from outgrow.chaos.scene import Place, Scene, leave_release
from outgrow.cluster.control import Request, change
from outgrow.cluster.state import State
from outgrow.errors import FleetNotRunning, Misuse
from outgrow.load import generator
from outgrow.load.generator import Observation, Progress
from outgrow.load.profile import Scenario
from outgrow.load.report import Report as LoadReport
from outgrow.load.target import Target, resolve
from outgrow.load.traffic import Verdict

WARMUP_S = 4.0
CALM_S = 8.0
SETTLE_S = 5.0
"""After a drill: what recovers late is to be seen."""

LOGGED_WITHIN_S = 1.5
"""Servers write their logs in batches."""

WHOLE_DAY_S = 86_400.0
DETAIL_MAX = 300


class Listener(NamedTuple):
    """Who hears how it goes: of the load each second, and of what happens at once."""

    progress: Callable[[Progress], None]
    happening: Callable[[Happening], None]


async def run(drill: Drill, place: Place, scenario: Scenario, *, hear: Listener) -> Report:
    """Run it to its end. However this ends, what it has injected is undone.

    Raises Misuse when the fleet is not as the drill needs it, and what the drill itself raises.
    """
    left = Left(place.directory)
    with left.locked():
        await _undo_left(left, place)
        await _require_ready(drill, place)
        status = await cluster.status(place.directory, measured=False)
        return await _Run(drill, Scene(place, left, hear.happening), scenario, resolve(status.url)).run(hear)


async def _undo_left(left: Left, place: Place) -> None:
    left.wake()
    if left.changed:
        await change(place.directory, Request("become", topology=place.topology), tell=lambda _: None)
        left.forget(changed=True)
    if left.release is not None:
        await leave_release(place.directory, place.topology, *left.release)
        left.forget(release=True)


async def _require_ready(drill: Drill, place: Place) -> None:
    state = State(place.directory)
    if state.holder() is None:
        raise FleetNotRunning(str(place.directory))
    if state.growing():
        raise Misuse("a growth is not finished here", hint="`outgrow grow --resume` or `--undo` first")
    if (why := drill.refuses(place.topology)) is not None:
        raise Misuse(f"the drill {drill.name} needs {why}", hint=f"`outgrow drill list`: {drill.needs}")
    nodes = (await cluster.status(place.directory, measured=False)).nodes
    if down := [each.name for each in nodes if each.tier and each.state != "ready"]:
        raise Misuse(f"{', '.join(down)} not ready", hint="a drill begins with a fleet that is in order")


class _Run:
    """One drill and its load."""

    def __init__(self, drill: Drill, scene: Scene, scenario: Scenario, target: Target) -> None:
        longest = scene.topology.balancer.request_timeout + 5
        steady = scenario.steady(None, WHOLE_DAY_S)
        if isinstance(drill, OwnLoad):
            steady = drill.load(steady)
        self._drill = drill
        self._scene = scene
        self._target = target
        self._marks = marks.require(scenario)
        # The balancer's patience counts, not the load's: a request that it saves late has not failed.
        self._scenario = msgspec.structs.replace(
            marks.marked(steady), warmup=0.0, timeout=max(scenario.timeout, longest)
        )
        self._finder = marks.Finder(self._marks)
        self._attempts: list[Attempt] = []
        self._begun = asyncio.Event()
        self._stop = asyncio.Event()
        scene.count = lambda url: self._count(resolve(url))

    async def run(self, hear: Listener) -> Report:
        started = time.time()
        loading = asyncio.ensure_future(
            generator.run(
                self._scenario,
                self._target,
                stop=self._stop,
                tell=lambda progress: self._heard(progress, hear),
                observe=self._observe,
            )
        )
        try:
            calm = await self._do(loading)
            self._stop.set()
            load = await loading
        finally:
            self._stop.set()
            await asyncio.gather(loading, return_exceptions=True)
        history = await self._history(calm, load)
        return report(self._drill, self._scene.topology, history, load, started)

    async def _do(self, loading: asyncio.Future[LoadReport]) -> tuple[float, float]:
        """The drill, once the load is on its way. Returns the calm before it."""
        beginning = asyncio.ensure_future(self._begun.wait())
        await asyncio.wait((beginning, loading), return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
        if loading.done():
            loading.result()  # it raises why
        watching = asyncio.ensure_future(
            self._scene.watch.run()
        )  # not before: the clock begins with the load
        try:
            await asyncio.sleep(WARMUP_S + CALM_S)
            calm = (WARMUP_S, self._scene.now())
            await self._drill.run(self._scene)
            await asyncio.sleep(SETTLE_S)
            if watching.done():
                watching.result()  # it raises why
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return calm

    def _heard(self, progress: Progress, hear: Listener) -> None:
        if progress.total and not self._begun.is_set():
            self._scene.began = time.monotonic() - progress.second
            self._begun.set()
        hear.progress(progress)

    def _observe(self, seen: Observation) -> None:
        is_mark = seen.name in (marks.WRITE, marks.READ)
        self._attempts.append(
            Attempt(
                request=seen.name,
                method=seen.asked.partition(" ")[0],
                intended=seen.intended,
                sent=seen.sent,
                ended=seen.ended,
                failure=seen.verdict.kind,
                detail=detail(seen.verdict),
                session=seen.user,
                trace=seen.trace_id,
                key=marks.key(seen.values) if is_mark else "",
                version=self._finder.version(seen) if is_mark else None,
            )
        )

    async def _history(self, calm: tuple[float, float], load: LoadReport) -> History:
        found = await self._count(self._target)
        await asyncio.sleep(LOGGED_WITHIN_S)
        logs = State(self._scene.directory).logs
        ran = await asyncio.to_thread(servers_of, logs, f"{load.run:0>16}")
        began = self._scene.began
        moved = [
            msgspec.structs.replace(
                each,
                intended=round(each.intended - began, 6),
                sent=round(each.sent - began, 6),
                ended=round(each.ended - began, 6),
                servers=tuple(ran.get(each.trace, ())),
            )
            for each in self._attempts
        ]
        return History(
            attempts=tuple(sorted([*moved, *self._scene.probed], key=lambda each: each.intended)),
            calm=calm,
            ended=max((each.ended for each in moved), default=calm[1]),
            happenings=tuple(self._scene.watch.happenings),
            samples=tuple(self._scene.watch.samples),
            found=found,
            restored=self._scene.restored,
        )

    async def _count(self, target: Target) -> dict[str, int]:
        return await marks.look(self._marks, target, [each.key for each in self._attempts if each.key])


def detail(verdict: Verdict) -> str:
    """What was wrong, in a line."""
    told = [f"{each.fact}: {each.expected} expected, {each.found} found" for each in verdict.violations]
    return ("; ".join(told) or verdict.detail)[:DETAIL_MAX]


class _Logged(msgspec.Struct):
    """What matters of a line of the access log."""

    logger: str = ""
    trace_id: str = ""


def servers_of(logs: Path, run: str) -> dict[str, list[str]]:
    """Which servers have answered each request of this run, by its trace: from their access logs."""
    found: dict[str, list[str]] = {}
    decoder, wanted = msgspec.json.Decoder(_Logged), f'"{run}'.encode()
    for path in sorted(logs.glob("*.log*")):
        for line in _lines(path):
            if wanted not in line:
                continue
            try:
                logged = decoder.decode(line)
            except msgspec.MsgspecError:
                continue  # cut short by a kill
            if logged.logger == "outgrow.access":
                found.setdefault(logged.trace_id, []).append(path.name.partition(".log")[0])
    return found


def _lines(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        yield from file

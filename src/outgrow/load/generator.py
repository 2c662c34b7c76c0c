"""The run: set-up, warm-up, load, and what is still under way at the end.

    Timer ─► due ─► a connection is free ──► send ─► judge ─► recorder
                 └► none is: wait in line ─────┘▲
                    (the line is full: an error)└─ the next in line

Nothing here slows down when the application does: starts come from the schedule alone.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple

from outgrow.errors import Misuse
from outgrow.load.client import Answer, Failure, Pool
from outgrow.load.preparation import prepare
from outgrow.load.profile import Scenario
from outgrow.load.recorder import NOT_SENT, Example, Recorder, Row
from outgrow.load.report import Report, Run, report
from outgrow.load.schedule import rate_at, starts
from outgrow.load.target import Target
from outgrow.load.timer import Timer
from outgrow.load.traffic import Call, Traffic, Verdict

INTERRUPTED_WAIT_S = 1.0
"""How long answers are waited for when the run was ended early."""

_SLACK_S = 0.5
"""Beyond the timeout of what was sent last."""

_BATCH_MAX = 200
"""Starts in one turn of the loop, so that a backlog of our own does not keep answers from being read."""


class Progress(NamedTuple):
    """How it goes. `second` counts from the beginning, warm-up included; `row` is the last whole one.

    `total` is 0 while the set-up requests are made.
    """

    state: str
    second: float
    total: float
    rate: float
    answered_rate: float
    row: Row
    errors: int
    violations: int
    under_way: int
    waiting: int


class Observation(NamedTuple):
    """One request as it went. Times are of time.monotonic(); `verdict` has no kind when the answer is right.

    One that never left has no name. `values` are those of its journey.
    """

    name: str
    asked: str
    trace_id: str
    user: int | None
    intended: float
    sent: float
    ended: float
    verdict: Verdict
    answer: Answer | None
    values: Mapping[str, Any]


Observe = Callable[[Observation], None]


async def run(
    scenario: Scenario,
    target: Target,
    *,
    stop: asyncio.Event | None = None,
    tell: Callable[[Progress], None] | None = None,
    observe: Observe | None = None,
) -> Report:
    """Load the target as the scenario says. `stop` ends it early, with a report; `tell` hears each second.

    `observe` hears of every request, those of the warm-up too.

    Raises Misuse when the scenario has no rate, OutgrowError when a set-up request fails.
    """
    if not scenario.phases:
        raise Misuse(
            "neither the scenario nor the call says a rate", hint="rate = 100 in the file, or --rate 100"
        )
    generator = _Generator(scenario, target, stop or asyncio.Event(), tell or _tell_nobody, observe)
    return await generator.run()


class _Generator:
    """One run."""

    def __init__(
        self,
        scenario: Scenario,
        target: Target,
        stop: asyncio.Event,
        tell: Callable[[Progress], None],
        observe: Observe | None,
    ) -> None:
        self._scenario = scenario
        self._target = target
        self._stop = stop
        self._tell = tell
        self._observe = observe
        self._traffic = Traffic(scenario, target, run=uuid.uuid4().hex[:12])
        limit = scenario.connections
        self._connections = min(limit, scenario.users) if self._traffic.needs_users else limit
        self._recorder = Recorder(scenario.warmup)
        self._waiting: deque[tuple[float, float]] = deque()
        self._finished = asyncio.Event()
        self._began = 0.0
        self._due: float | None = None

    async def run(self) -> Report:
        scenario = self._scenario
        self._pool = Pool(self._target, maximum=self._connections, timeout_s=scenario.timeout)
        try:
            await prepare(self._traffic, self._pool, self._stop, self._tell_set_up)
            return await self._load()
        finally:
            await self._pool.close()

    async def _load(self) -> Report:
        scenario = self._scenario
        self._timer = Timer(self._send_due)
        self._starts = starts(scenario.whole, scenario.arrivals, scenario.seed)
        started_at, cpu = time.time(), time.process_time()
        self._began = monotonic()
        ticker = asyncio.get_running_loop().create_task(self._tick())
        try:
            self._schedule_next()
            await self._until_over()
        finally:
            ticker.cancel()
            self._timer.close()
        interrupted = self._stop.is_set()
        self._give_up_waiting()
        await self._pool.close(kind="unfinished")
        seconds = self._now()
        facts = Run(
            target=self._target.url,
            run=self._traffic.run,
            started_at=started_at,
            seconds=seconds,
            interrupted=interrupted,
            connections=self._connections,
            connections_opened=self._pool.connections_opened,
            cpu=(time.process_time() - cpu) / seconds if seconds else 0.0,
            checked=self._traffic.checked,
        )
        return report(scenario, self._recorder, facts)

    def _now(self) -> float:
        return monotonic() - self._began

    def _schedule_next(self) -> None:
        self._due = next(self._starts, None)
        if self._due is None:
            self._finish_if_done()
        else:
            self._timer.at(self._began + self._due)

    def _send_due(self) -> None:
        """Every start that is due by now."""
        for _ in range(_BATCH_MAX):
            if self._due is None or self._stop.is_set():
                break
            now = self._now()
            if self._due > now:
                break
            self._start(self._due, now)
            self._due = next(self._starts, None)
        if self._due is not None:
            self._timer.at(self._began + self._due)
        else:
            self._finish_if_done()

    def _start(self, intended: float, now: float) -> None:
        self._recorder.noticed(intended, now)
        if self._pool.free and not self._waiting:
            self._send(intended, now, now)
        elif len(self._waiting) < self._scenario.waiting:
            self._waiting.append((intended, now))
            self._recorder.waiting(now, len(self._waiting))
        else:
            self._not_sent(intended, now, f"{self._scenario.waiting:,} requests were waiting already")

    def _send(self, intended: float, noticed: float, now: float) -> None:
        call = self._traffic.next()
        self._recorder.was_sent(intended, now - noticed)
        try:
            data = self._traffic.encode(call)
        except KeyError as error:
            self._judge(call, intended, Failure("no value", f"{{{error.args[0]}}} has no value yet"))
            return
        self._pool.send(data, lambda outcome: self._done(call, intended, outcome))

    def _done(self, call: Call, intended: float, outcome: Answer | Failure) -> None:
        self._judge(call, intended, outcome)
        while self._waiting and self._pool.free and not self._stop.is_set():
            meant, noticed = self._waiting.popleft()
            self._send(meant, noticed, self._now())
        self._finish_if_done()

    def _judge(self, call: Call, intended: float, outcome: Answer | Failure) -> None:
        came = (outcome.sent, outcome.received) if isinstance(outcome, Answer) else (monotonic(),) * 2
        sent, now = (moment - self._began for moment in came)
        name, asked = call.step.name, call.asked
        trace_id = self._traffic.trace_id(call)
        verdict = self._traffic.judge(call, outcome)
        if not verdict.kind:
            self._recorder.right(name, intended, sent, now)
        else:
            detail = verdict.detail
            if verdict.violations and isinstance(outcome, Answer):
                detail = outcome.body[:4_000].decode("utf-8", "replace")
            example = Example(verdict.kind, name, now, trace_id, asked, detail, verdict.violations)
            self._recorder.wrong(example, intended)
        if self._observe is not None:
            user = None if call.user is None else int(call.user.variables["user"])
            times = (self._began + intended, self._began + sent, self._began + now)
            answer = outcome if isinstance(outcome, Answer) else None
            self._observe(Observation(name, asked, trace_id, user, *times, verdict, answer, call.values))

    def _finish_if_done(self) -> None:
        if self._due is None and not self._waiting and not self._pool.under_way:
            self._finished.set()

    async def _until_over(self) -> None:
        """Until the last answer, or the end of patience after the last start or an interruption."""
        stopped = asyncio.ensure_future(self._stop.wait())
        finished = asyncio.ensure_future(self._finished.wait())
        length = sum(phase.duration for phase in self._scenario.whole)
        try:
            await asyncio.wait(
                (stopped, finished),
                timeout=length + self._scenario.timeout + _SLACK_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._stop.is_set():
                self._due = None
                self._give_up_waiting()
                if self._pool.under_way:
                    await asyncio.wait((finished,), timeout=INTERRUPTED_WAIT_S)
        finally:
            stopped.cancel()
            finished.cancel()

    def _give_up_waiting(self) -> None:
        now = self._now()
        why = "the run was ended" if self._stop.is_set() else "no connection became free in time"
        while self._waiting:
            self._not_sent(self._waiting.popleft()[0], now, why)

    def _not_sent(self, intended: float, now: float, why: str) -> None:
        self._recorder.not_sent(intended, now, why)
        if self._observe is not None:
            meant, ended = self._began + intended, self._began + now
            self._observe(
                Observation("", "", "", None, meant, ended, ended, Verdict(NOT_SENT, why), None, {})
            )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1 - self._now() % 1 + 0.01)
            self._tell(self._progress())

    def _progress(self) -> Progress:
        recorder, second = self._recorder, self._now()
        whole = self._scenario.whole
        last = int(second / recorder.row_s) - 1
        row = recorder.rows[last] if 0 <= last < len(recorder.rows) else Row()
        return Progress(
            state="warming up" if second < self._scenario.warmup else "loading",
            second=second,
            total=sum(phase.duration for phase in whole),
            rate=rate_at(whole, second - recorder.row_s),
            answered_rate=row.answered / recorder.row_s,
            row=row,
            errors=sum(recorder.errors.values()),
            violations=recorder.violations,
            under_way=len(self._pool.under_way),
            waiting=len(self._waiting),
        )

    def _tell_set_up(self, text: str) -> None:
        self._tell(Progress(text, 0.0, 0.0, 0.0, 0.0, Row(), 0, 0, len(self._pool.under_way), 0))


def _tell_nobody(progress: Progress) -> None:
    return

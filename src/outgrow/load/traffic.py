"""What is asked, by whom, and whether the answer is right. No I/O: it makes bytes and reads answers.

    next() ─► Call ─► encode() ─► bytes ~~~~~► Answer ─► judge() ─► Verdict
     ▲                                                     │ captures, cookies, bookmark, facts
     └──────────── the next step of the journey ◄──────────┘

A user makes one request at a time, as the session of a person does: so it is always known what was
written before a read was sent, and the bookmark of each answer is sent with the next request.
"""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from outgrow.load.client import Answer, Failure
from outgrow.load.draws import source
from outgrow.load.profile import Request, Scenario
from outgrow.load.step import Step
from outgrow.load.target import Target
from outgrow.load.template import Template
from outgrow.load.user import User
from outgrow.load.values import Values, header_lines

NEVER_SENT = ("refused", "connect", "not sent")
"""Failures after which a write has certainly not happened."""


class Violation(NamedTuple):
    """An answer that contradicts what the same user was told before."""

    fact: str
    expected: str
    found: str


class Verdict(NamedTuple):
    """`kind` is empty when the answer is right; otherwise `detail` says what is wrong."""

    kind: str
    detail: str
    violations: tuple[Violation, ...] = ()


RIGHT = Verdict("", "")


class Call:
    """A step that somebody makes, in a journey."""

    __slots__ = ("asked", "number", "position", "step", "steps", "user", "values")

    def __init__(self, steps: Sequence[Step], user: User | None, values: Values) -> None:
        self.steps = steps
        self.position = 0
        self.step = steps[0]
        self.user = user
        self.values = values
        self.number = 0
        self.asked = ""

    def advance(self) -> bool:
        """Go on to the next step, if there is one."""
        self.position += 1
        if self.position == len(self.steps):
            return False
        self.step = self.steps[self.position]
        return True


class Traffic:
    """The calls of a run. `run` is a word that no other run has, at most 16 hexadecimal digits."""

    def __init__(self, scenario: Scenario, target: Target, *, run: str) -> None:
        self.scenario = scenario
        self.run = run
        self.users = [User(number, run) for number in range(scenario.users)]
        self.lists: dict[str, list[Any]] = {}
        self._target = target
        self._keeps = scenario.bookmark == "keep"
        self._traced_every = round(1 / scenario.traced) if scenario.traced else 0
        self._rng = random.Random(f"{scenario.seed} traffic")
        self._unique = itertools.count(1)
        self._numbers = itertools.count(1)
        self._sources: dict[str, Callable[[], Any]] = {}
        self._headers = {name: Template(text) for name, text in scenario.headers.items()}
        self._user_headers = {name: Template(text) for name, text in scenario.user.headers.items()}
        self._head = self._common_head()
        self._items, self._weights = _weighted(scenario, target.prefix)
        self._idle = list(self.users)
        self._continued: deque[Call] = deque()

    @property
    def needs_users(self) -> bool:
        """Whether any request is made by a user: then no more are under way than there are users."""
        return any(steps[0].signed_in > 0 or len(steps) > 1 for steps in self._items)

    @property
    def checked(self) -> int:
        """How often an answer was held against what its user knew."""
        return sum(user.facts.checked for user in self.users)

    def forget_draws(self) -> None:
        """The lists have changed."""
        self._sources.clear()

    def check_draws(self) -> None:
        """Raises OutgrowError when a list that is drawn from is empty."""
        for name in self.scenario.draw:
            self._draw(name)

    def next(self) -> Call:
        """A journey's next step if one is due, else the beginning of another. Some user must be idle."""
        if self._continued:
            return self._continued.popleft()
        steps = self._items[bisect(self._weights, self._rng.random() * self._weights[-1])]
        share = steps[0].signed_in if len(steps) == 1 else 1.0
        signed_in = share == 1.0 or (share > 0.0 and self._rng.random() < share)
        return self.call(steps, self._take_user() if signed_in else None)

    def call(self, steps: Sequence[Step], user: User | None) -> Call:
        """A journey of these steps, at its first one."""
        return Call(steps, user, Values(self._draw, {} if user is None else user.variables))

    def encode(self, call: Call) -> bytes:
        """The whole request. Raises KeyError for a name without a value."""
        call.number = next(self._numbers)
        user, values = call.user, call.values
        head = user.head(self._user_headers) if user is not None else b""
        lines = call.step.lines(values)
        call.asked = lines.partition(b" HTTP/")[0].decode()
        recorded = b"01" if self._traced_every and call.number % self._traced_every == 0 else b"00"
        trace = b"traceparent: 00-%s-%016x-%s\r\n" % (self.trace_id(call).encode(), call.number, recorded)
        return b"".join((lines, self._head, trace, head, call.step.body(values)))

    def trace_id(self, call: Call) -> str:
        """By which the application's logs and traces know the request."""
        return f"{self.run:0>16}{call.number:016x}"

    def judge(self, call: Call, outcome: Answer | Failure) -> Verdict:
        """Whether the answer is right; what it says is kept, and the journey goes on or ends."""
        verdict = self.judge_alone(call, outcome)
        self._move_on(call, goes_on=verdict.kind in ("", "violation"))
        return verdict

    def judge_alone(self, call: Call, outcome: Answer | Failure) -> Verdict:
        """The same of a request that belongs to no journey."""
        try:
            return self._verdict(call, outcome)
        except KeyError as error:
            return Verdict("no value", f"{{{error.args[0]}}} has no value yet")

    def step(self, name: str, request: Request) -> Step:
        """A request, compiled for this target."""
        return Step(name, request, self._target.prefix)

    def _verdict(self, call: Call, outcome: Answer | Failure) -> Verdict:
        if isinstance(outcome, Failure):
            if outcome.kind not in NEVER_SENT:
                _doubt(call)
            return Verdict(outcome.kind, outcome.detail)
        step = call.step
        if call.user is not None:
            call.user.keep_session(outcome.headers, bookmark=self._keeps)
        expected = outcome.status in step.status if step.status else 200 <= outcome.status < 300
        if not expected:
            if not 400 <= outcome.status < 500:
                _doubt(call)
            return Verdict(f"status {outcome.status}", _excerpt(outcome.body))
        return self._content(call, outcome.body) if step.looks_inside else RIGHT

    def _content(self, call: Call, body: bytes) -> Verdict:
        try:
            document = msgspec.json.decode(body) if body else None
        except msgspec.DecodeError as error:
            _doubt(call)
            return Verdict("wrong content", f"no JSON: {error}: {_excerpt(body)}")
        complaint = call.step.complaint(document, call.values)
        if complaint:
            _doubt(call)
            return Verdict("wrong content", f"{complaint}: {_excerpt(body)}")
        if call.user is None:
            return RIGHT
        violations = tuple(_contradictions(call, call.user, document))
        for name, place in call.step.capture.items():
            call.user.capture(name, place.find(document))
        try:
            for write in call.step.writes:
                write.apply(call.user.facts, call.values, document)
        except (KeyError, TypeError) as error:
            return Verdict("wrong content", f"nothing to remember: {error}: {_excerpt(body)}")
        if violations:
            return Verdict("violation", violations[0].fact, violations)
        return RIGHT

    def _move_on(self, call: Call, *, goes_on: bool) -> None:
        if goes_on and call.advance():
            self._continued.append(call)
        elif call.user is not None:
            self._idle.append(call.user)

    def _take_user(self) -> User:
        place = self._rng.randrange(len(self._idle))
        self._idle[place], self._idle[-1] = self._idle[-1], self._idle[place]
        return self._idle.pop()

    def _draw(self, name: str) -> Any:
        if name == "unique":
            return next(self._unique)
        if name == "run":
            return self.run
        if name not in self._sources:
            self._sources[name] = source(self.scenario.draw[name], self._rng, self.lists)
        return self._sources[name]()

    def _common_head(self) -> bytes:
        host = f"host: {self._target.host}\r\nuser-agent: outgrow-load\r\n".encode()
        return host + header_lines(self._headers, Values(self._draw, {}))


def _contradictions(call: Call, user: User, document: Any) -> list[Violation]:
    found: dict[str, Violation] = {}
    for read in call.step.reads:
        if not read.rises and not user.facts.any:
            continue
        for fact, shown in read.shown(call.values, document):
            wrong = (
                user.facts.check_rises(fact, shown)
                if read.rises
                else user.facts.check(fact, shown, cut=read.may_be_cut(shown))
            )
            if wrong is not None:
                found[fact] = Violation(fact, wrong.expected, wrong.found)
    return list(found.values())


def _doubt(call: Call) -> None:
    if call.user is not None:
        for write in call.step.writes:
            write.doubt(call.user.facts, call.values)


def _weighted(scenario: Scenario, prefix: str) -> tuple[list[tuple[Step, ...]], list[float]]:
    """The journeys, a request alone being one, and the running sums of their weights."""
    steps = {name: Step(name, request, prefix) for name, request in scenario.request.items()}
    items: list[tuple[Step, ...]] = []
    weights: list[float] = []
    for name, request in scenario.request.items():
        if request.weight:
            items.append((steps[name],))
            weights.append(request.weight)
    for journey in scenario.journey.values():
        if journey.weight:
            items.append(tuple(steps[name] for name in journey.steps))
            weights.append(journey.weight)
    return items, list(itertools.accumulate(weights))


def _excerpt(body: bytes, length: int = 2_000) -> str:
    text = body[:length].decode("utf-8", "replace")
    return text + (f"... ({len(body):,} bytes)" if len(body) > length else "")

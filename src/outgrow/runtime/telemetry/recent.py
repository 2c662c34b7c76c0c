"""The slow and the failed requests of this process, with their parts: /metrics/requests.

kept: every request that failed, every one of SLOW_S or more, and the slowest few of each second. A
reader asks for what came after the last that it has; who asks too seldom misses some, never the end.

    GET /metrics/requests?began=B&after=N  ->  {"began": B, "last": M, "requests": [...]}

`began` names this process's ring: a reader that comes with another one gets all there is. What is
neither failed nor slower than the slowest so far costs a request one comparison.
"""

from __future__ import annotations

import time
from collections import deque
from heapq import heappush, heapreplace
from urllib.parse import parse_qs

import msgspec

from outgrow.runtime import scope as request
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope, Span
from outgrow.runtime.telemetry.logs import PATH_LENGTH_MAX, printable

KEPT_MAX = 100
SLOW_S = 0.5
SLOWEST_EACH = 4
WINDOW_S = 1.0
CLIENT_CLOSED_REQUEST = 499


class Kept(msgspec.Struct, frozen=True, gc=False):
    """One request, or one attempt at a message. Times like those of Span; `at` is Unix time of its end."""

    reason: str
    at: float
    method: str
    route: str
    path: str
    status: int
    seconds: float
    error: str | None
    trace_id: str
    started: float
    spans: list[Span]


class Part(msgspec.Struct, array_like=True):
    """A span as it is told: microseconds after the request's start, and how many it took."""

    kind: str
    name: str
    node: str
    after_us: int
    us: int
    error: str | None


class Request(msgspec.Struct):
    """One of them as it is told. `reason` is "failed", "slow" or "slowest"; a message has method "TASK"."""

    id: int
    reason: str
    at: float
    method: str
    route: str
    path: str
    status: int
    ms: float
    error: str | None
    trace_id: str
    spans: list[Part]


class Answer(msgspec.Struct):
    """What a reader gets."""

    began: float
    last: int
    requests: list[Request]


class Recent:
    """A sink for request_finished and message_finished."""

    def __init__(self) -> None:
        self.began = time.time()
        self._kept: deque[Kept] = deque(maxlen=KEPT_MAX)
        self._last = 0
        self._slowest: list[tuple[float, int, Kept]] = []
        self._floor = 0.0
        self._window_ends = 0.0
        self._count = 0

    def subscribe(self, events: Events) -> None:
        """Hear what ends."""
        events.request_finished.subscribe(self.request_finished)
        events.message_finished.subscribe(self.message_finished)

    def request_finished(
        self, scope: Scope, method: str, route: str, status: int, seconds: float, path: str, error: str | None
    ) -> None:
        """Keep it if it failed, or is among the slowest."""
        failed = status >= 500 or (error is not None and status != CLIENT_CLOSED_REQUEST)
        if not failed and seconds <= self._floor and seconds < SLOW_S:
            return
        reason = "failed" if failed else "slow" if seconds >= SLOW_S else "slowest"
        self._keep(_kept(reason, scope, method, route, path, status, seconds, error))

    def message_finished(self, task: str, outcome: str, seconds: float, attempt: int) -> None:
        """The same for a queued message; slow work is what a queue is for, so slow ones compare with none."""
        scope = request.current.get()  # the worker tells it while the message's scope is open
        if scope is not None and outcome != "done":
            name = f"{task}, attempt {attempt}"
            self._keep(_kept("failed", scope, "TASK", task, name, 0, seconds, outcome))

    def answer(self, query: bytes) -> bytes:
        """What came after the last that the reader has, as JSON."""
        if time.monotonic() >= self._window_ends:
            self._close_window()
        asked = parse_qs(query.decode("latin-1"))
        same = asked.get("began") == [repr(self.began)]
        after = _number(asked.get("after", ["0"])[0]) if same else 0
        first = self._last - len(self._kept) + 1
        told = [_told(number, kept) for number, kept in enumerate(self._kept, first) if number > after]
        return msgspec.json.encode(Answer(self.began, self._last, told))

    def _keep(self, kept: Kept) -> None:
        if kept.reason != "slowest":
            self._kept.append(kept)
            self._last += 1
            return
        now = time.monotonic()
        if now >= self._window_ends:
            self._close_window()
            self._window_ends = now + WINDOW_S
        self._count += 1
        entry = (kept.seconds, self._count, kept)
        if len(self._slowest) < SLOWEST_EACH:
            heappush(self._slowest, entry)
        else:
            heapreplace(self._slowest, entry)
        if len(self._slowest) == SLOWEST_EACH:
            self._floor = self._slowest[0][0]

    def _close_window(self) -> None:
        """The slowest of the second that has passed are known now."""
        for _, _, kept in sorted(self._slowest, key=lambda entry: entry[1]):
            self._kept.append(kept)
            self._last += 1
        self._slowest.clear()
        self._floor = 0.0


def _kept(
    reason: str,
    scope: Scope,
    method: str,
    route: str,
    path: str,
    status: int,
    seconds: float,
    error: str | None,
) -> Kept:
    if len(path) > PATH_LENGTH_MAX or not path.isprintable():
        path = printable(path, PATH_LENGTH_MAX)
    return Kept(
        reason,
        time.time(),
        method,
        route,
        path,
        status,
        seconds,
        error,
        scope.trace_id,
        scope.started,
        scope.spans,
    )


def _told(number: int, kept: Kept) -> Request:
    return Request(
        number,
        kept.reason,
        round(kept.at, 3),
        kept.method,
        kept.route,
        kept.path,
        kept.status,
        round(kept.seconds * 1000, 3),
        kept.error,
        kept.trace_id,
        [_part(span, kept.started) for span in kept.spans],
    )


def _part(span: Span, started: float) -> Part:
    after_us = max(0, int((span.ended - span.seconds - started) * 1e6))
    return Part(span.kind, span.name, span.node, after_us, int(span.seconds * 1e6), span.error)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

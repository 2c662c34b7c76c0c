"""What is true of the request, job or script that is running now.

The middleware opens a Scope for each request and the worker for each message; the tiers read and
raise its bookmark. Outside of both there is none, and every tier works without one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import msgspec

from outgrow.runtime.bookmark import Bookmark, Position


class Span(msgspec.Struct, frozen=True, gc=False):
    """One timed part of a request. It ended at `ended` (time.perf_counter()) and took `seconds`.

    `kind` is "query", "transaction", "wait" (for a connection) or "load" (of a cache entry); `node` is
    where, if that is known. A struct, since many are made and few are looked at: 0.1 us each.
    """

    kind: str
    name: str
    node: str
    ended: float
    seconds: float
    error: str | None = None


class Scope:
    """The context of one request or message.

    `trace_id` (32 hex digits) and `span_id` (16) follow W3C Trace Context; `parent_id` is the
    caller's span; `sampled` is whether a collector gets its trace. `started` is time.perf_counter(), and
    `spans` holds its parts so far (telemetry/spans.py), since nobody knows yet that it will be slow.
    `local` is for parts of the runtime that remember something for one request only. `unsettled` is to be
    awaited before the bookmark travels on: what was read on a primary gets a position. `restarted` is
    whether the bookmark demands less than the caller's, because what that demands is lost. `observed` counts
    what may have shown it something new, and `current_at` is that count when the cache of this process
    was last known to be as new as that.
    """

    __slots__ = (
        "bookmark",
        "current_at",
        "local",
        "observed",
        "parent_id",
        "restarted",
        "sampled",
        "span_id",
        "spans",
        "started",
        "trace_id",
        "unsettled",
        "wrote",
    )

    def __init__(
        self,
        bookmark: Bookmark | None = None,
        *,
        trace_id: str = "",
        span_id: str = "",
        parent_id: str = "",
        sampled: bool = False,
    ) -> None:
        self.bookmark = bookmark if bookmark is not None else Bookmark()
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.sampled = sampled
        self.started = perf_counter()
        self.spans: list[Span] = []
        self.wrote = False
        self.observed = 1
        self.current_at = 0
        self.restarted = False
        self.unsettled: Callable[[Bookmark], Awaitable[None]] | None = None
        self.local: dict[Any, Any] | None = None


class Message(NamedTuple):
    """A message staged in a transaction: stored if and only if that transaction commits."""

    topic: str
    body: bytes
    delay_s: float = 0.0
    key: str | None = None
    """Two undelivered messages of one topic with the same key are one."""


class UnitOfWork(Protocol):
    """The open write block, as the other tiers see it."""

    def stage(self, message: Message) -> None:
        """Store the message with this transaction."""

    def after_commit(
        self, effect: Callable[[Position], None], tags: tuple[str, ...] = (), *, certain: bool = False
    ) -> None:
        """Call `effect` with the commit's position once COMMIT has returned.

        Also when nobody knows whether it has committed, unless it must be `certain`. `tags` join the
        session's bookmark as written by it. An effect must not raise or block.
        """

    def announced_by(self, announcer: Announcer) -> None:
        """Have all the tags of `after_commit` announced before COMMIT, and settled after it."""


class Announcer(Protocol):
    """Who tells others of what a transaction changes."""

    async def announce(self, tags: Sequence[str]) -> tuple[Sequence[str], Message | None]:
        """It is about to commit. Returns of which tags others have been told; and, since they could not be
        told of the rest, what is stored with it."""

    def settle(self, tags: Sequence[str], position: Position | None) -> None:
        """What was announced has been committed there, or was not (None). Not called if nobody knows."""


class Loading(Protocol):
    """A cache entry that is being loaded, as the database sees it.

    What is read for it must show everything up to `floor`: its tags were invalidated there. `read_at` is told
    what a read shows at least.
    """

    floor: Position

    def read_at(self, position: Position) -> None: ...


current: ContextVar[Scope | None] = ContextVar("outgrow_scope", default=None)
unit_of_work: ContextVar[UnitOfWork | None] = ContextVar("outgrow_unit_of_work", default=None)
loading: ContextVar[Loading | None] = ContextVar("outgrow_loading", default=None)

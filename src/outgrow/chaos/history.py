"""What happened during a drill: the only thing that a verdict looks at. Times are seconds from the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

SAFE = ("GET", "HEAD", "OPTIONS")
NOT_SENT = "not sent"

Kind = Literal["fault", "undo", "out", "in", "node", "note"]
"""out, in: a balancer sends a server nothing any more, or something again. node: a process's state."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the load.

    `failure` is empty when the answer was right. `key` is the mark that a marked request is about, and
    `version` what it says of it: a write makes it 1, a read has found it so often. `servers` are those
    whose logs have the request, which a process that was killed may not have written any more.
    """

    request: str
    method: str
    intended: float
    sent: float
    ended: float
    failure: str = ""
    detail: str = ""
    session: int | None = None
    trace: str = ""
    key: str = ""
    version: int | None = None
    servers: tuple[str, ...] = ()

    @property
    def reads(self) -> bool:
        """Whether it changes nothing. One that never left counts as a read: nothing was begun."""
        return self.method in SAFE or self.failure == NOT_SENT

    def under_way(self, moment: float) -> bool:
        """Whether it had been sent by then and not ended."""
        return self.sent <= moment <= self.ended


class Happening(msgspec.Struct, frozen=True):
    """Something that was done, or that a node or a balancer did."""

    at: float
    kind: Kind
    node: str
    text: str


class Sample(msgspec.Struct, frozen=True):
    """What a balancer said of one server: how many requests it has sent there in all."""

    at: float
    balancer: str
    server: str
    requests: int
    healthy: bool


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `calm` is the time before the first fault with which the rest is compared.

    `found` says how often each mark was there when the load had ended; `restored` of those that were written
    by then, how often each was in what a drill has restored.
    """

    attempts: tuple[Attempt, ...]
    calm: tuple[float, float]
    ended: float
    happenings: tuple[Happening, ...] = ()
    samples: tuple[Sample, ...] = ()
    found: dict[str, int] = {}
    restored: dict[str, int] = {}

    def moments(self, kind: Kind, node: str | None = None) -> list[float]:
        """When this happened, to this node if one is named."""
        return [each.at for each in self.happenings if each.kind == kind and node in (None, each.node)]

    def first(self, kind: Kind) -> Happening:
        """The first one of this kind. Raises LookupError when there is none."""
        return min((each for each in self.happenings if each.kind == kind), key=lambda each: each.at)

    def stretch(self, what: str) -> tuple[float, float]:
        """Between the notes "what begins" and "what ends"."""
        at = {each.text: each.at for each in self.happenings if each.kind == "note"}
        return at[f"{what} begins"], at[f"{what} ends"]

    def until(self, moment: float) -> History:
        """What had ended by then."""
        attempts = tuple(each for each in self.attempts if each.ended <= moment)
        return msgspec.structs.replace(self, attempts=attempts, ended=min(self.ended, moment))

    def only(self, request: str) -> History:
        """With the requests of this name alone."""
        return msgspec.structs.replace(
            self, attempts=tuple(each for each in self.attempts if each.request == request)
        )

    def without(self, request: str) -> History:
        """Without the requests of this name."""
        return msgspec.structs.replace(
            self, attempts=tuple(each for each in self.attempts if each.request != request)
        )

    def disturbances(self) -> Iterator[tuple[float, float]]:
        """From each fault to when it was undone, or only its moment where there was nothing to undo."""
        for fault in (each for each in self.happenings if each.kind == "fault"):
            undone = [at for at in self.moments("undo", fault.node) if at >= fault.at]
            yield fault.at, min(undone, default=fault.at)

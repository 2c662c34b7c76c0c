"""What a scenario file says, as immutable values.

Every field is a key of the file. `Meta.title` is what the parser says must stand there, and
`Meta.description` what the key is for; docs/load.md explains them with examples.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

DURATION = "duration"
"""Marks a key that also takes a text such as "30s"."""


def _seconds(least: float, description: str) -> Meta:
    words = 'a duration like 30, "500ms" or "2m"'
    return Meta(ge=least, le=7 * 86_400, title=words, description=description, extra={DURATION: True})


def _whole(least: int, most: int, description: str) -> Meta:
    words = f"a whole number from {least:,} to {most:,}"
    return Meta(ge=least, le=most, title=words, description=description)


def _number(least: float, most: float, description: str) -> Meta:
    words = f"a number from {least:,} to {most:,}"
    return Meta(ge=least, le=most, title=words, description=description)


Text = Annotated[str, Meta(min_length=1, title="a text")]
Texts = Annotated[dict[str, str], Meta(title="a table of texts")]
Paths = Annotated[dict[str, Text], Meta(title='a table of places in the answer, like token = "user.token"')]
Rate = Annotated[float, _number(0, 1_000_000, "requests a second")]
Status = Annotated[
    tuple[Annotated[int, Meta(ge=100, le=599)], ...],
    Meta(min_length=1, title="an array of HTTP statuses, like [200, 404]"),
]


From = Annotated[str | tuple[Any, ...], Meta(title="an array, or the name of a list that [[setup]] collects")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Phase(Section, frozen=True, kw_only=True):
    """[[phase]]: a stretch of time with one rate, or with one that rises or falls evenly."""

    rate: Rate
    to: Rate | None = None
    duration: Annotated[float, _seconds(0.001, "how long it lasts")]


class User(Section, frozen=True, kw_only=True):
    """[user]: what the requests that a user makes have in common."""

    headers: Texts = {}


class Draw(Section, frozen=True, kw_only=True):
    """[draw]: a name whose value is drawn anew for each journey. Exactly one of from, words and between."""

    from_: From | None = msgspec.field(name="from", default=None)
    zipf: Annotated[float, _number(0, 5, "exponent: the first of the list are drawn more often")] | None = (
        None
    )
    words: Annotated[int, _whole(1, 10_000, "a text of so many words")] | None = None
    between: Annotated[tuple[int, int], Meta(title="an array of two whole numbers")] | None = None


class Read(Section, frozen=True, kw_only=True):
    """What an answer shows of a fact."""

    fact: Text
    at: Text
    each: Text | None = None
    rises: bool = False
    at_most: Annotated[int, _whole(1, 1_000_000, "how long a list the answer gives at most")] | None = None


class Write(Section, frozen=True, kw_only=True):
    """What an answered request has made true. Exactly one of set, add and remove."""

    fact: Text
    set: Any = msgspec.UNSET
    add: Any = msgspec.UNSET
    remove: Any = msgspec.UNSET
    last: Annotated[int, _whole(1, 1_000, "how many of those added the answer has to show")] = 100


class Request(Section, frozen=True, kw_only=True):
    """[request.NAME]: one request, what its answer must be, and what that answer says."""

    weight: Annotated[float, _number(0, 1_000_000, "how often, relative to the others")] = 0.0
    method: Annotated[
        Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
        Meta(title='"GET", "POST", "PUT", "PATCH" or "DELETE"'),
    ] = "GET"
    path: Annotated[str, Meta(pattern=r"^/\S*$", title='a text that begins with "/" and has no space')]
    headers: Texts = {}
    json: Any = msgspec.UNSET
    signed_in: Annotated[float, _number(0, 1, "the share of these requests that a user makes")] = 1.0
    status: Status | None = None
    has: Annotated[tuple[Text, ...], Meta(title="an array of places in the answer")] = ()
    equals: Annotated[dict[str, Any], Meta(title="a table of places and their values")] = {}
    capture: Paths = {}
    reads: tuple[Read, ...] = ()
    writes: tuple[Write, ...] = ()


class Setup(Request, frozen=True, kw_only=True):
    """[[setup]]: a request before the load, once or by each user. It must succeed."""

    name: Text
    each: Annotated[Literal["once", "user"], Meta(title='"once" or "user"')] = "once"
    collect: Paths = {}


class Journey(Section, frozen=True, kw_only=True):
    """[journey.NAME]: requests that one user makes one after the other, with the same drawn values."""

    weight: Annotated[float, _number(0, 1_000_000, "how often, relative to the others")]
    steps: Annotated[tuple[Text, ...], Meta(min_length=1, title="an array of names of requests")]


class Marks(Section, frozen=True, kw_only=True):
    """[marks]: a write that only drills make, each with a mark of its own, and the read that finds a mark."""

    share: Annotated[float, _number(0.001, 1, "of all requests while a drill runs")] = 0.1
    write: Request
    read: Request
    at: Text


class Session(Section, frozen=True, kw_only=True):
    """[session]: how a user opens a session on the server, and how they see that it is still theirs."""

    share: Annotated[float, _number(0.001, 1, "of all requests while the drill runs")] = 0.2
    open: Request
    check: Request


class Scenario(Section, frozen=True, kw_only=True):
    """The whole file."""

    name: Text = "load"
    rate: Rate | None = None
    duration: Annotated[float, _seconds(0.001, "how long the load is measured")] = 30.0
    warmup: Annotated[float, _seconds(0, "how long it goes on before that, unmeasured")] = 5.0
    phase: tuple[Phase, ...] = ()
    arrivals: Annotated[Literal["poisson", "constant"], Meta(title='"poisson" or "constant"')] = "poisson"
    users: Annotated[int, _whole(1, 100_000, "how many users there are")] = 100
    connections: Annotated[int, _whole(1, 10_000, "how many requests may be under way at once")] = 256
    waiting: Annotated[int, _whole(0, 1_000_000, "how many more may wait for a connection")] = 10_000
    timeout: Annotated[float, _seconds(0.001, "an answer that takes longer is an error")] = 10.0
    bookmark: Annotated[Literal["keep", "drop"], Meta(title='"keep" or "drop"')] = "keep"
    seed: Annotated[int, _whole(0, 2**63 - 1, "the same seed makes the same requests")] = 1
    traced: Annotated[float, _number(0, 1, "the share of requests whose spans should be recorded")] = 0.01
    headers: Texts = {}
    user: User = User()
    draw: dict[str, Draw] = {}
    setup: tuple[Setup, ...] = ()
    request: dict[str, Request] = {}
    journey: dict[str, Journey] = {}
    marks: Marks | None = None
    session: Session | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The measured time; empty when neither a rate nor a phase is given."""
        if self.phase or self.rate is None:
            return self.phase
        return (Phase(rate=self.rate, duration=self.duration),)

    @property
    def whole(self) -> tuple[Phase, ...]:
        """The phases after the warm-up, which goes on at the first one's rate."""
        if not self.warmup:
            return self.phases
        return (Phase(rate=self.phases[0].rate, duration=self.warmup), *self.phases)

    @property
    def seconds(self) -> float:
        """How long the measured time is."""
        return sum(phase.duration for phase in self.phases)

    def steady(self, rate: float | None, duration: float | None) -> Scenario:
        """The same at one rate all the time: what is None stays as it is in the file."""
        if rate is None and duration is None:
            return self
        first = self.phases[0].rate if self.phases else None
        return replace(
            self,
            phase=(),
            rate=first if rate is None else rate,
            duration=(self.seconds or self.duration) if duration is None else duration,
        )

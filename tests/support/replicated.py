"""A replicated store in simulated time, whose sessions keep their guarantees or don't: histories to judge.

    write ─► primary's log ─► each replica applies it whenever it likes ─► read

One random number decides everything, so that Hypothesis has one thing to draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from msgspec.structs import replace

from outgrow.chaos.operations import Operation, Outcome

KEYS = "abcde"
REPLICAS = 3
OUTCOMES: tuple[Outcome, ...] = ("ok",) * 8 + ("failed", "unknown")


@dataclass
class Session:
    """`bookmark` is how much of the log it must see. One that is `told` of a lost write starts anew."""

    number: int
    bookmark: int = 0
    began: float = 0.0
    plan: str = ""
    key: str = ""
    result: Operation | None = None
    told: bool = False


@dataclass
class Store:
    """`keeps` is whether reads respect bookmarks; `loses` whether failovers lose what no replica had."""

    seed: int
    steps: int = 400
    keeps: bool = True
    loses: bool = False
    tells: bool = True
    operations: list[Operation] = field(default_factory=list)

    def run(self) -> list[Operation]:
        """The whole history, and at its end a read of each key from the primary, by session 0."""
        self._rng = Random(self.seed)
        self._log: list[tuple[str, int, int]] = []  # key, version, value
        self._applied = [0] * REPLICAS
        self._now = 0.0
        self._numbers = iter(range(1, 10_000_000))
        self._messages: list[tuple[int, int]] = []  # message, bookmark
        self._lost: list[int] = []  # where a failover has cut the log
        sessions = [Session(next(self._numbers)) for _ in range(self._rng.randint(2, 6))]
        for _ in range(self.steps):
            self._now += self._rng.random()
            self._replicate()
            place = self._rng.randrange(len(sessions))
            if sessions[place].told:
                sessions[place] = Session(next(self._numbers))
            self._advance(sessions[place])
            if self.loses and self._rng.random() < 0.02:
                self._fail_over(sessions)
        for each in sessions:
            if each.result is not None and not each.told:
                self._advance(each)
        return self.operations

    def last(self) -> list[Operation]:
        """What the primary has in the end."""
        return [self._read(Session(0, began=self._now), key, len(self._log)) for key in KEYS]

    def _replicate(self) -> None:
        for node in range(REPLICAS):
            if self._rng.random() < 0.3:
                self._applied[node] = self._rng.randint(self._applied[node], len(self._log))

    def _fail_over(self, sessions: list[Session]) -> None:
        """The most advanced replica becomes the primary; the others follow it."""
        end = max(self._applied)
        if end < len(self._log):
            del self._log[end:]
            for each in sessions:
                if each.bookmark > end:
                    each.bookmark = end
                    self._tell(each)
            self._messages = [(number, mark) for number, mark in self._messages if mark <= end]

    def _tell(self, session: Session) -> None:
        """It hears that what it knows is lost, also instead of the answer that it waits for."""
        session.told = self.tells
        if self.tells and session.result is not None and session.result.kind == "write":
            unsure = {"version": 0, "previous": 0, "outcome": "unknown", "ended": self._now}
            self.operations.append(replace(session.result, **unsure))

    def _advance(self, session: Session) -> None:
        """An operation is three steps: it begins, it happens, it ends."""
        if not session.plan:
            session.plan = self._rng.choice(["read", "read", "read", "write", "write", "send", "receive"])
            session.key, session.began = self._rng.choice(KEYS), self._now
        elif session.result is None:
            session.result = self._happen(session)
        else:
            self.operations.append(replace(session.result, ended=self._now))
            session.plan, session.result = "", None

    def _happen(self, session: Session) -> Operation:
        if session.plan == "read":
            return self._read(session, session.key, self._node(session))
        if session.plan == "write":
            return self._write(session, session.key)
        if session.plan == "receive" and self._messages:
            number, bookmark = self._rng.choice(self._messages)
            session.bookmark = max(session.bookmark, bookmark)
            return self._made(session, "receive", message=number)
        number = next(self._numbers)
        self._messages.append((number, session.bookmark))
        return self._made(session, "send", message=number)

    def _node(self, session: Session) -> int:
        """How much of the log is visible where it reads: on a node that is fresh enough."""
        nodes = [each for each in self._applied if each >= session.bookmark or not self.keeps]
        visible = self._rng.choice([*nodes, len(self._log)])
        session.bookmark = max(session.bookmark, visible)
        return visible

    def _read(self, session: Session, key: str, visible: int) -> Operation:
        found = [(version, value) for written, version, value in self._log[:visible] if written == key]
        (_, previous), (version, value) = [(0, 0), (0, 0), *found][-2:]
        return self._made(session, "read", key=key, version=version, value=value, previous=previous)

    def _write(self, session: Session, key: str) -> Operation:
        """One in ten fails, and of one in ten nobody knows."""
        outcome = self._rng.choice(OUTCOMES)
        value, message = next(self._numbers), next(self._numbers) if self._rng.random() < 0.2 else 0
        if outcome == "failed" or (outcome == "unknown" and self._rng.random() < 0.5):
            return self._made(session, "write", key=key, value=value, message=message, outcome=outcome)
        last = self._read(session, key, len(self._log))
        self._log.append((key, last.version + 1, value))
        if message:
            self._messages.append((message, len(self._log)))
        if outcome == "unknown":
            return self._made(session, "write", key=key, value=value, message=message, outcome=outcome)
        session.bookmark = len(self._log)
        return self._made(
            session,
            "write",
            key=key,
            version=last.version + 1,
            value=value,
            previous=last.value,
            message=message,
        )

    def _made(self, session: Session, kind: str, **what: object) -> Operation:
        return Operation(session=session.number, kind=kind, started=session.began, ended=self._now, **what)  # type: ignore[arg-type]

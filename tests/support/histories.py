"""Plays many sessions on registers and records what each of them did and saw: a history to judge.

    session: read, read, write, hand its bookmark over, read ... ─► Operation ─► chaos/guarantees.py

Closed loop (`at_once` sessions, each as fast as it is answered) for as many operations as can be had; open
loop (`rate` operations a second, due when they are due) where latencies count.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from time import perf_counter
from typing import NamedTuple

from outgrow.chaos.operations import Kind, Operation, Outcome
from tests.support.fleets import wait_until
from tests.support.registers import KEYS, Client, Refused, Tokens, Told

HANDED_MAX = 50
"""How many bookmarks wait to be taken: the newest ones, which ask for most."""

RETRY_S = 0.02


class Mix(NamedTuple):
    """What sessions do: so many registers, and which share of their operations are writes and hand-overs.

    `messages` and `fails` are shares of the writes: those that send a message, and those that are rolled back
    on purpose. A session lasts for `life` operations on average.
    """

    keys: int = KEYS
    writes: float = 0.1
    hands_over: float = 0.02
    messages: float = 0.05
    fails: float = 0.02
    life: int = 60


class Session:
    """One user: one thing after the other."""

    def __init__(self, number: int, left: int) -> None:
        self.number = number
        self.left = left
        self.tokens: Tokens = ()


class Player:
    """`operations` is the history so far, and `refused` counts what was not answered, by kind."""

    def __init__(self, client: Client, mix: Mix = Mix(), *, seed: int = 1) -> None:  # noqa: B008, it is frozen
        self.operations: list[Operation] = []
        self.refused: Counter[str] = Counter()
        self.mix = mix
        self._client = client
        self._random = Random(seed)
        self._sessions = itertools.count(1)
        self._numbers = itertools.count(1)
        self._handed: deque[tuple[int, Tokens]] = deque(maxlen=HANDED_MAX)
        client.heard = self._hear

    async def play(self, *, at_once: int, until: Callable[[], bool]) -> None:
        """Closed loop."""
        await asyncio.gather(*(self._user(until) for _ in range(at_once)))

    async def play_at(self, rate: float, *, until: Callable[[], bool]) -> None:
        """Open loop: a session that is idle does what is due, or a new one where all are busy."""
        idle: list[Session] = []
        tasks: set[asyncio.Task[None]] = set()
        begun, loop = perf_counter(), asyncio.get_running_loop()

        async def one(session: Session) -> None:
            await self._step(session)
            if session.left > 0:
                idle.append(session)

        for number in itertools.count():
            await asyncio.sleep(begun + number / rate - perf_counter())
            if until():
                break
            session = idle.pop(self._random.randrange(len(idle))) if idle else self._new()
            task = loop.create_task(one(session))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    def wait_for(self, count: int, kind: Kind = "read") -> None:
        """From a thread: until so many more of them have succeeded."""

        def done() -> int:
            return sum(each.kind == kind and each.outcome == "ok" for each in list(self.operations))

        wanted = done() + count
        wait_until(lambda: done() >= wanted, f"{count} operations")

    def ports(self) -> Counter[str]:
        """How many reads each server has answered."""
        return Counter(each.node for each in self.operations if each.kind == "read" and each.outcome == "ok")

    async def _user(self, until: Callable[[], bool]) -> None:
        session = self._new()
        while not until():
            if session.left <= 0:
                session = self._new()
            await self._step(session)

    def _new(self) -> Session:
        return Session(next(self._sessions), int(self._random.expovariate(1 / self.mix.life)) + 2)

    async def _step(self, session: Session) -> None:
        session.left -= 1
        chance, key = self._random.random(), self._random.randrange(self.mix.keys)
        if chance < self.mix.writes:
            await self._write(session, key)
        elif chance < self.mix.writes + self.mix.hands_over:
            self._hand_over(session)
        else:
            await self._read(session, key)

    async def _read(self, session: Session, key: int) -> None:
        started = perf_counter()
        try:
            told = await self._client.read(session.tokens, key)
        except Refused as refused:
            await self._refused(session, refused)
            return
        session.tokens = told.tokens
        self._note(session, "read", started, key, told)

    async def _write(self, session: Session, key: int) -> None:
        value, started = next(self._numbers), perf_counter()
        message = next(self._numbers) if self._random.random() < self.mix.messages else 0
        fails = self._random.random() < self.mix.fails
        try:
            told = await self._client.write(session.tokens, key, value, message=message, fails=fails)
        except Refused as refused:
            nothing = Told(0, value, 0, 0, ())
            outcome: Outcome = "unknown" if refused.began else "failed"
            self._note(session, "write", started, key, nothing, outcome, message)
            if refused.began:
                await self._refused(session, refused)
            return
        session.tokens = told.tokens
        self._note(session, "write", started, key, told, message=message)

    async def _refused(self, session: Session, refused: Refused) -> None:
        """Who is told that writes are lost signs in again, as it were. Others try something else."""
        self.refused[refused.kind] += 1
        if refused.kind == "LostWrite":
            session.left = 0
        await asyncio.sleep(RETRY_S)

    def _hand_over(self, session: Session) -> None:
        """Give the bookmark to whoever wants it, or take one."""
        now = perf_counter()
        if self._handed and len(session.tokens) < 2 and self._random.random() < 0.5:
            message, tokens = self._random.choice(self._handed)
            session.tokens = tuple(dict.fromkeys((*session.tokens, *tokens)))[:2]
            self._message(session, "receive", now, message)
        elif len(session.tokens) == 1:
            message = next(self._numbers)
            self._handed.append((message, session.tokens))
            self._message(session, "send", now, message)

    def _hear(self, message: int, key: int, told: Told) -> None:
        """A job has read what the write wrote that caused it."""
        now, session = perf_counter(), Session(next(self._sessions), 0)
        self._message(session, "receive", now, message)
        self._note(session, "read", now, key, told)

    def _message(self, session: Session, kind: Kind, now: float, message: int) -> None:
        self.operations.append(
            Operation(session=session.number, kind=kind, started=now, ended=now, message=message)
        )

    def _note(
        self,
        session: Session,
        kind: Kind,
        started: float,
        key: int,
        told: Told,
        outcome: Outcome = "ok",
        message: int = 0,
    ) -> None:
        self.operations.append(
            Operation(
                session=session.number,
                kind=kind,
                started=started,
                ended=perf_counter(),
                key=str(key),
                version=told.version,
                value=told.value,
                previous=told.previous,
                outcome=outcome,
                message=message,
                node=str(told.port) if told.port else "",
            )
        )

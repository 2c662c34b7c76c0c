"""The set-up requests: what must be there before the load, such as users who are signed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from outgrow.errors import OutgrowError
from outgrow.load.client import Answer, Failure, Pool
from outgrow.load.profile import Setup
from outgrow.load.template import MISSING, Place
from outgrow.load.traffic import Traffic
from outgrow.load.user import User

AT_ONCE_MAX = 16
"""Users who are set up at a time: a sign-in may be dear to the application."""

_TOLD_S = 0.5


async def prepare(traffic: Traffic, pool: Pool, stop: asyncio.Event, tell: Callable[[str], None]) -> None:
    """Make every set-up request, in the file's order. Raises OutgrowError at the first that fails."""
    for setup in traffic.scenario.setup:
        users: list[User | None] = [None] if setup.each == "once" else list(traffic.users)
        await _Round(traffic, pool, setup, stop, tell).run(users)
        traffic.forget_draws()
    if not stop.is_set():
        traffic.check_draws()


class _Round:
    """One set-up request, by everybody who makes it."""

    def __init__(
        self,
        traffic: Traffic,
        pool: Pool,
        setup: Setup,
        stop: asyncio.Event,
        tell: Callable[[str], None],
    ) -> None:
        self._traffic = traffic
        self._pool = pool
        self._stop = stop
        self._tell = tell
        self._step = traffic.step(setup.name, setup)
        self._collect = [(name, Place(text)) for name, text in setup.collect.items()]

    async def run(self, users: list[User | None]) -> None:
        remaining = iter(users)
        done = 0

        async def work() -> None:
            nonlocal done
            for user in remaining:
                if self._stop.is_set():
                    return
                await self._make(user)
                done += 1
                if done % 10 == 0 or done == len(users):
                    self._tell(f"set-up: {self._step.name}, {done:,} of {len(users):,}")

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE_MAX, len(users), self._pool.maximum)):
                    group.create_task(work())
        except* OutgrowError as errors:
            raise errors.exceptions[0] from None

    async def _make(self, user: User | None) -> None:
        traffic, call = self._traffic, self._traffic.call((self._step,), user)
        answered: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
        self._pool.send(traffic.encode(call), lambda outcome: _settle(answered, outcome))
        outcome = await answered
        verdict = traffic.judge_alone(call, outcome)
        if verdict.kind:
            raise OutgrowError(
                f'the set-up request "{self._step.name}" failed: {verdict.kind}: {verdict.detail}',
                hint="is the application running, and is this its scenario?",
            )
        if self._collect and isinstance(outcome, Answer):
            self._keep(msgspec.json.decode(outcome.body))

    def _keep(self, document: Any) -> None:
        for name, place in self._collect:
            found = place.find(document)
            values = found if isinstance(found, list) else [] if found is MISSING else [found]
            kept = self._traffic.lists.setdefault(name, [])
            kept += [value for value in dict.fromkeys(values) if value not in kept]


def _settle(answered: asyncio.Future[Answer | Failure], outcome: Answer | Failure) -> None:
    if not answered.done():  # another user's request has failed, and nobody waits any more
        answered.set_result(outcome)

"""Asks one node what it is, again and again: seldom while all is well, at once when somebody waits."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from outgrow.errors import Unavailable
from outgrow.runtime.database.routing import Seen, Told

LOOK_S = 0.25
"""How often a node is asked: 5 nodes cost a process less than a hundredth of a core."""

LOOK_SOON_S = 0.04
"""How often while something is wrong, and how far apart two looks are that somebody hopes for."""

SLOW_S = 0.15
"""A node that takes so long for an answer may be out: the others are looked at more often, in case that one
of them is promoted."""

ANSWER_WITHIN_S = 1.0
RETRY_MAX_S = 1.0


class Watched(Protocol):
    """A node that can be asked."""

    name: str

    async def look(self, *, ends_of: int) -> Told:
        """What it says; with `ends`, unless its timeline is this one. Raises Unavailable alone."""

    async def look_away(self) -> None:
        """Give up the connection that `look` uses."""

    def abandon(self) -> None:
        """End whatever is under way on this node."""


class Listener(Protocol):
    """Who wants to know (replicas.View)."""

    def note(self, name: str, told: Told, at: float) -> Seen: ...
    def fail(self, name: str, reason: str, *, lost: bool) -> None: ...
    def alarm(self) -> None: ...
    def alarmed(self) -> bool: ...
    @property
    def ends_of(self) -> int: ...


class Watch:
    """One node, looked at for as long as this lives."""

    def __init__(self, node: Watched, listener: Listener) -> None:
        self.node = node
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[Seen]] = []
        self._wake: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._when = 0.0
        self._looked_at = 0.0
        self._task = self._loop.create_task(self._look_for_ever())

    async def close(self) -> None:
        """Ask no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        waiting, self._waiting = self._waiting, []
        _answer(waiting, Unavailable("nobody looks at it any more", node=self.node.name))
        await self.node.look_away()

    def hurry(self) -> None:
        """Ask soon: somebody hopes for news."""
        self._due(max(0.0, self._looked_at + LOOK_SOON_S - monotonic()))

    async def fresh(self, within_s: float) -> Seen:
        """What the node says when it is asked from now on. Raises Unavailable when it does not in time."""
        future: asyncio.Future[Seen] = self._loop.create_future()
        self._waiting.append(future)
        self._due(0.0)
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            raise Unavailable(f"no answer within {within_s:g} s", node=self.node.name) from None

    async def _look_for_ever(self) -> None:
        retry_s = LOOK_SOON_S
        while True:
            self._wake = self._loop.create_future()
            answered = await self._look()
            retry_s = LOOK_SOON_S if answered else min(retry_s * 1.5, RETRY_MAX_S)
            self._due(
                LOOK_SOON_S if answered and self._listener.alarmed() else LOOK_S if answered else retry_s
            )
            await self._wake

    def _due(self, seconds: float) -> None:
        """Look in so many seconds, if not before."""
        when = self._loop.time() + seconds
        if self._timer is not None and not self._timer.cancelled() and self._when <= when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._when = self._loop.call_at(when, self._ring), when

    def _ring(self) -> None:
        self._timer = None
        if not self._wake.done():
            self._wake.set_result(None)

    async def _look(self) -> bool:
        waiting, self._waiting = self._waiting, []
        at = self._looked_at = monotonic()
        name = self.node.name
        slow = self._loop.call_later(SLOW_S, self._listener.alarm)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                told = await self.node.look(ends_of=self._listener.ends_of)
        except Exception as error:  # whatever it is: nobody may go blind for ever by one bad answer
            lost = not isinstance(error, TimeoutError)
            reason = error.message if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
            if not lost:
                reason = "it does not answer"
                await self.node.look_away()
            self._listener.fail(name, reason, lost=lost)
            _answer(waiting, Unavailable(reason, node=name))
            return False
        except BaseException:
            _answer(waiting, Unavailable("nobody looks at it any more", node=name))
            raise
        finally:
            slow.cancel()
        _answer(waiting, self._listener.note(name, told, at))
        return True


def _answer(waiting: list[asyncio.Future[Seen]], answer: Seen | Unavailable) -> None:
    for future in waiting:
        if future.done():
            continue
        if isinstance(answer, Unavailable):
            future.set_exception(answer)
        else:
            future.set_result(answer)

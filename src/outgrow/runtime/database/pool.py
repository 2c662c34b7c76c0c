"""A pool that is a plain list: whoever gives back hands over to whoever waits longest.

    take ─► used by one block ─► release ─► the longest waiter, or the list
      └─ none is idle: open another while there is room, else wait

A connection is given back as it is, so whatever is kept here must leave no state behind.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from outgrow import errors
from outgrow.runtime.events import Events

CLOSE_TIMEOUT_S = 3.0


class Poolable(Protocol):
    """One connection."""

    @property
    def closed(self) -> bool: ...
    async def aclose(self) -> None: ...
    def terminate(self) -> None: ...


C = TypeVar("C", bound=Poolable)


class Pool(ABC, Generic[C]):
    """At most `size` connections to one server."""

    def __init__(self, name: str, size: int, checkout_timeout_s: float, events: Events) -> None:
        self.name = name
        self._size = size
        self._checkout_timeout_s = checkout_timeout_s
        self._events = events
        self._free: list[C] = []
        self._opened = 0
        self._all: set[C] = set()
        self._condemned: set[C] = set()
        self._waiters: deque[asyncio.Future[C | None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @abstractmethod
    async def connect(self, deadline: float) -> C:
        """A new connection, by this time of perf_counter. Raises Unavailable."""

    async def open(self) -> None:
        """Open the first connection. Raises Unavailable when the server cannot be reached in time."""
        self.reopen()
        self.release(await self.acquire(), broken=False)

    def reopen(self) -> None:
        """Connections may be had (again), the first when somebody wants it."""
        self._closed = False

    async def close(self) -> None:
        """Close every connection that is not in use; those in use follow when they come back."""
        self._closed = True
        free, self._free = self._free, []
        for connection in free:
            self._discard(connection)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_TIMEOUT_S)

    def take(self) -> C | None:
        """An idle connection, at once."""
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
            self._discard(connection)
        return None

    async def acquire(self) -> C:
        """A connection. Raises Unavailable when none can be had within database.checkout_timeout."""
        return self.take() or await self._wait_or_connect()

    def release(self, connection: C, /, *, broken: bool) -> None:
        """Take a connection back, for whoever waits longest."""
        if (
            broken
            or self._closed
            or connection.closed
            or self._opened > self._size
            or (self._condemned and connection in self._condemned)
        ):
            self._discard(connection)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._free.append(connection)

    def resize(self, connections: int) -> None:
        """At most so many from now on: idle ones beyond that are closed, used ones when they come back."""
        self._size = connections
        while self._opened > self._size and self._free:
            self._discard(self._free.pop())
        for _ in range(self._size - self._opened):
            self._wake()

    def retire(self) -> None:
        """No connection that is open now is used again: what one has just learnt holds for the rest."""
        free, self._free = self._free, []
        self._condemned |= self._all.difference(free)
        for connection in free:
            self._discard(connection)

    def abandon(self) -> None:
        """Hang up on every connection: the server is not what it was, or gone. Who waits for it is told."""
        self.retire()
        for connection in self._all:
            connection.terminate()

    @property
    def used(self) -> int:
        """Connections in use."""
        return self._opened - len(self._free)

    def figures(self) -> dict[str, int]:
        """Connections by state."""
        idle = len(self._free)
        return {"idle": idle, "used": self._opened - idle, "max": self._size}

    async def _wait_or_connect(self) -> C:
        started = perf_counter()
        deadline = started + self._checkout_timeout_s
        while True:
            if self._opened < self._size:
                connection: C | None = await self._open_another(deadline)
            else:
                connection = await self._wait(deadline)
            if connection is not None:
                self._events.connection_waited(self.name, perf_counter() - started)
                return connection

    async def _wait(self, deadline: float) -> C | None:
        """A connection that another block gives back, or None when a place has become free."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[C | None] = loop.create_future()
        # A timer alone: asyncio.timeout() costs as much as the rest of the wait.
        timer = loop.call_later(deadline - perf_counter(), _give_up, waiter)
        self._waiters.append(waiter)
        try:
            return await waiter
        except _GaveUp:
            raise errors.Unavailable(
                f"all {self._size} connections were in use for {self._checkout_timeout_s:g} s",
                node=self.name,
                hint="keep blocks short, or raise database.pool in outgrow.toml",
            ) from None
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            timer.cancel()

    def _abandon(self, waiter: asyncio.Future[C | None]) -> None:
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            handed = waiter.result()
            if handed is None:
                self._wake()
            else:
                self.release(handed, broken=False)

    async def _open_another(self, deadline: float) -> C:
        self._opened += 1
        try:
            connection = await self.connect(deadline)
        except BaseException:
            self._opened -= 1
            self._wake()
            raise
        self._all.add(connection)
        self._events.connection_opened(self.name)
        return connection

    def _discard(self, connection: C) -> None:
        self._opened -= 1
        self._all.discard(connection)
        self._condemned.discard(connection)
        self._events.connection_closed(self.name)
        if not connection.closed:
            task = asyncio.ensure_future(connection.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._wake()

    def _wake(self) -> None:
        """A place is free: the longest waiter may open a connection of its own."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class _GaveUp(Exception):
    """Nobody has given a connection back in time."""


def _give_up(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(_GaveUp())

"""From a client's ticket to its session, and back into the store when the answer begins.

    ticket ─► signature ─► key ─► record ─► Session ─► application
                                                          │ what it has changed
    store ◄─ replace, if still that version ◄─ merged ◄───┘
               └─ not any more: load what is there, merge, again

Of each key the last writer wins, and nothing of other keys is lost. `rotate` leaves a note of the new key
under the old one for a minute. Requests that were under way follow it with their changes; it is no way
in: a request that begins with the old ticket gets an empty session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from math import ceil
from random import random
from time import perf_counter
from typing import NamedTuple, TypeVar

from outgrow import endpoints
from outgrow.errors import OutgrowError, SessionConflict, SessionsUnavailable, SessionTooLarge
from outgrow.runtime.breaker import Breaker
from outgrow.runtime.events import Events
from outgrow.runtime.sessions.calls import Calls
from outgrow.runtime.sessions.moving import Moving
from outgrow.runtime.sessions.session import Content, Session, apply, content_of, data_of, require_size
from outgrow.runtime.sessions.store import Record, Store
from outgrow.runtime.sessions.ticket import Tickets

T = TypeVar("T")

FAILURES = 3
"""So often in a row a store may fail before it is left alone for a moment."""

ATTEMPTS = 32
"""In each round of those who change one session at once, one gets through: so many may do it."""

PAUSE_S_MAX = 0.02
MOVED_MS = 60_000
"""How long an old key remembers the new one: longer than requests last."""

HOPS = 8
ENDED = "ended"
"""Stands in place of the new key when there is none: it was destroyed."""

TOUCHED_AFTER = 0.1
"""The share of its idle time after which a use is noted: reading a session is not always a write."""


class Visit:
    """One request's session, and where it was found. `moved`: its ticket was valid a moment ago."""

    __slots__ = ("attempts", "key", "known", "moved", "record", "saved", "session")

    def __init__(
        self, session: Session, *, key: str = "", record: Record | None = None, moved: bool = False
    ) -> None:
        self.session = session
        self.key = key
        self.record = record
        self.moved = moved
        self.known = bool(key)
        self.saved = False
        self.attempts = 1


class Ticket(NamedTuple):
    """What the client is to hold from now on: nothing when the text is empty."""

    text: str
    max_age_s: int


FORGET = Ticket("", 0)


class Sessions:
    """The tier. `now` is the clock, in seconds of Unix time."""

    def __init__(
        self,
        settings: endpoints.Sessions,
        store: Store,
        keys: Mapping[int, bytes],
        events: Events,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.store = store
        self._tickets = Tickets(keys)
        self._events = events
        self._breaker = Breaker(FAILURES)
        self._calls = Calls()
        self._now = now
        self._idle_ms = int(settings.idle_timeout_s * 1000)
        self._lifetime_ms = int(settings.lifetime_s * 1000)
        self._size_max = settings.size_bytes_max

    async def open(self) -> None:
        """Get ready. A store that is down is not asked yet: what needs no session works without it."""
        await self.store.open()

    async def close(self) -> None:
        """Give up its connections."""
        await self.store.close()

    async def use(self, store: Store) -> None:
        """From now on this one. No call of the one before is under way any more when it returns."""
        self.store = store
        before, self._calls = self._calls, Calls()
        await before.ended()

    async def carry(self, until: float, *, clear: bool) -> tuple[int, bool]:
        """Bring home what is in the other store, or clear that (moving.py); nothing when there is none.

        `use` waits for it as for every call: to the end of what whoever asked for it may have given up. Else
        it would go on in the old direction while another process already brings everything back.
        """
        store = self.store
        if not isinstance(store, Moving):
            return 0, False
        with self._calls:
            return await (store.clear(until) if clear else store.carry(until))

    async def check(self) -> str:
        """For the deep health check. Raises SessionsUnavailable."""
        return await self._ask(self.store.check)

    def stranger(self) -> Visit:
        """The visit of somebody without a ticket."""
        return Visit(Session(size_max=self._size_max))

    async def visit(self, tickets: Iterable[bytes]) -> Visit:
        """The session of the first ticket that is good. When the store is down, one that refuses all use."""
        started = perf_counter()
        outcome, visit = "forged", self.stranger()
        try:
            for key in filter(None, map(self._tickets.key_of, tickets)):
                outcome, visit = await self._find(key)
                if outcome == "found":
                    break
        except SessionsUnavailable as error:
            outcome, visit = "unavailable", Visit(Session(size_max=self._size_max, failure=error))
        self._events.session_loaded(outcome, perf_counter() - started)
        return visit

    async def _find(self, key: str) -> tuple[str, Visit]:
        record = await self._ask(self.store.load, key)
        if (
            record is None
            or self._until(record.created) <= self._now_ms()
            or record.expires <= self._now_ms()
        ):
            return "unknown", Visit(Session(size_max=self._size_max), key=key)
        if record.moved:
            moved = record.moved != ENDED
            return "moved" if moved else "unknown", Visit(
                Session(size_max=self._size_max), key=key, moved=moved
            )
        session = Session(content_of(record.data), size_max=self._size_max)
        return "found", Visit(session, key=key, record=record)

    async def save(self, visit: Visit) -> Ticket | None:
        """Keep what has changed. Returns what the client is to hold, or None where that is what it holds.

        Raises SessionsUnavailable, SessionConflict, SessionTooLarge, and Misuse for a value that no
        session can keep; of the changes nothing is kept then, as far as the store could be asked.
        """
        changes = visit.session.changes()
        if not changes and not visit.session.ending:
            return None
        started = perf_counter()
        outcome = "failed"
        try:
            outcome, ticket = await self._save(visit, changes)
        except SessionsUnavailable:
            outcome = "unavailable"
            raise
        except SessionConflict:
            outcome = "conflict"
            raise
        except SessionTooLarge:
            outcome = "too_large"
            raise
        finally:
            self._events.session_saved(outcome, perf_counter() - started, visit.attempts)
        visit.saved = True
        return ticket

    async def touch(self, visit: Visit) -> None:
        """Note that it was used, when that was not noted for a while. That much may fail."""
        record = visit.record
        if visit.saved or record is None:
            return
        now = self._now_ms()
        if record.expires - now > self._idle_ms * (1 - TOUCHED_AFTER):
            return
        expires = self._expires(record.created)
        if expires > record.expires:
            try:
                await self._ask(self.store.touch, visit.key, expires, expires - now)
            except OutgrowError:
                return

    async def _save(self, visit: Visit, changes: Content) -> tuple[str, Ticket | None]:
        ending = visit.session.ending
        if ending == "destroy":
            return await self._destroy(visit, changes)
        if visit.record is not None:
            if ending == "rotate":
                return await self._rotate(visit, visit.record, changes)
            return await self._update(visit, visit.record, changes), None
        if visit.moved and not ending:
            # A new session here would take the place of the one that the client has just been given.
            raise SessionConflict(
                "this session has just got another id", hint="repeat the request with the new cookie"
            )
        return await self._create(apply(changes, {}))

    async def _create(self, content: Content, created: int | None = None) -> tuple[str, Ticket | None]:
        if not content:
            return "nothing", None
        ticket, key = self._tickets.new()
        record = self._record(1, self._now_ms() if created is None else created, content)
        await self._ask(self.store.add, key, record, record.expires - self._now_ms())
        return "created", self._ticket(ticket, record)

    async def _update(self, visit: Visit, record: Record, changes: Content) -> str:
        key, content = visit.key, visit.session.loaded
        while True:
            changed = self._record(record.version + 1, record.created, apply(changes, content))
            if await self._replace(key, record.version, changed):
                return "updated"
            await self._pause(visit)
            found = await self._follow(key)
            if found is None:
                return "gone"  # it was destroyed meanwhile, and nothing brings it back
            key, record = found
            content = content_of(record.data)

    async def _rotate(self, visit: Visit, record: Record, changes: Content) -> tuple[str, Ticket | None]:
        content = visit.session.loaded
        while True:
            ticket, key = self._tickets.new()
            begun = self._record(1, record.created, apply(changes, content))
            await self._ask(self.store.add, key, begun, begun.expires - self._now_ms())
            if await self._replace(visit.key, record.version, self._note(record, key)):
                return "rotated", self._ticket(ticket, begun)
            await self._ask(self.store.remove, key)
            await self._pause(visit)
            found = await self._ask(self.store.load, visit.key)
            if found is None or found.moved == ENDED:
                return await self._create(apply(changes, {}))
            if found.moved:
                # Somebody else has rotated it: whoever that was, their new id is not this client's.
                return await self._create(apply(changes, visit.session.loaded), record.created)
            record, content = found, content_of(found.data)

    async def _destroy(self, visit: Visit, changes: Content) -> tuple[str, Ticket | None]:
        key = visit.key
        while visit.record is not None and (found := await self._follow(key)) is not None:
            key, record = found
            if await self._replace(key, record.version, self._note(record, ENDED)):
                break
            await self._pause(visit)
        _, ticket = await self._create(apply(changes, {}))
        return "destroyed", ticket or (FORGET if visit.known else None)

    async def _follow(self, key: str) -> tuple[str, Record] | None:
        """The record of this key, or of the one to which it has moved; None when it has ended."""
        for _ in range(HOPS):
            record = await self._ask(self.store.load, key)
            if record is None or record.moved == ENDED:
                return None
            if not record.moved:
                return key, record
            key = record.moved
        return None

    async def _replace(self, key: str, version: int, record: Record) -> bool:
        return await self._ask(self.store.replace, key, version, record, record.expires - self._now_ms())

    async def _pause(self, visit: Visit) -> None:
        """Somebody was faster. Raises SessionConflict when that was so too often."""
        if visit.attempts >= ATTEMPTS:
            raise SessionConflict(
                f"a session was changed by others {ATTEMPTS} times in a row", hint="repeat the request"
            )
        await asyncio.sleep(random() * min(PAUSE_S_MAX, 0.0005 * 2**visit.attempts))
        visit.attempts += 1

    async def _ask(self, method: Callable[..., Awaitable[T]], *arguments: object) -> T:
        if self._breaker.rest_s:
            raise SessionsUnavailable("it has just failed several times, and is asked again in a moment")
        try:
            with self._calls:
                answer = await method(*arguments)
        except SessionsUnavailable:
            self._breaker.failed()
            raise
        self._breaker.worked()
        return answer

    def _record(self, version: int, created: int, content: Content) -> Record:
        require_size(content, self._size_max)
        return Record(version, created, self._expires(created), data_of(content))

    def _note(self, record: Record, moved: str) -> Record:
        return Record(record.version + 1, record.created, self._now_ms() + MOVED_MS, b"{}", moved)

    def _ticket(self, text: str, record: Record) -> Ticket:
        return Ticket(text, max(1, ceil((self._until(record.created) - self._now_ms()) / 1000)))

    def _expires(self, created: int) -> int:
        return min(self._now_ms() + self._idle_ms, self._until(created))

    def _until(self, created: int) -> int:
        return created + self._lifetime_ms

    def _now_ms(self) -> int:
        return int(self._now() * 1000)

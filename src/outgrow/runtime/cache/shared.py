"""The cache that all processes share, and this process's part in it, which is as good as what lies there.

    L1 miss ─► entry on the shelf, with the versions that its tags have now? ─► value
                 └ no ─► note the tags; does another process load it already? ─► wait for that
                            └ no ─► load ─► keep it on the shelf, if its tags are still as noted

Every process hears at once of every tag that is gone, on the connection by which it asks. So a session is
served from memory after one exchange with the shelf a request (`current`): before that it may have seen, in
another process, what is not known here yet; after it, it has not.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain, count
from time import monotonic

import msgspec

from outgrow import endpoints
from outgrow.errors import DatabaseError, Unavailable
from outgrow.runtime.bookmark import Position
from outgrow.runtime.cache.codec import pack
from outgrow.runtime.cache.looks import Looks
from outgrow.runtime.cache.memory import Entry
from outgrow.runtime.cache.redis import Gone
from outgrow.runtime.cache.shelf import Found, Heard, Shelf
from outgrow.runtime.cache.shelves import Shelves
from outgrow.runtime.cache.tags import Tags
from outgrow.runtime.cache.wanted import Wanted
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Message, Scope

WAIT_S = 1.0
"""So long one process waits for the load of another; then it loads for itself."""

GRACE_S = 2.5
"""After a new connection sessions are not served from memory for so long: others may still have none, and
write what they can tell nobody."""

OWE_S = 0.2


class Shared:
    """`tags` are what this process knows of them, `position` the newest that it knows; `written`: see Shelf.

    `message` makes one of the tags that a transaction changes while nobody can be told; whoever gets it is to
    call `invalidate`.
    """

    def __init__(
        self,
        settings: endpoints.Cache,
        passwords: Sequence[str | None],
        application: str,
        tags: Tags,
        position: Callable[[], Position],
        written: Callable[[], Awaitable[Position]],
        message: Callable[[Sequence[str]], Message],
        events: Events,
    ) -> None:
        self._id = random.randbytes(8).hex()
        self._tags = tags
        self._message = message
        self._events = events
        self._position = position
        self._owed: dict[str, Position] = {}
        self._paying: asyncio.Task[None] | None = None
        self._trusted_at = math.inf
        self._waiting: dict[str, asyncio.Event] = {}
        self._tokens = count(1)
        self._shelf = _shelf(settings.urls, passwords, application, heard=self, written=written)
        self._looks = Looks(self._shelf, tags, position)
        self.open, self.barrier, self.look = self._shelf.open, self._shelf.barrier, self._looks.look
        self.every, self.everything = self._shelf.every, self._shelf.everything

    async def close(self) -> None:
        """Hear no more."""
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.gather(self._paying, return_exceptions=True)
        await self._shelf.close()

    @property
    def up(self) -> bool:
        """Whether the shelf can be asked. If not, this process has its own cache, and no session."""
        return self._shelf.up

    @property
    def trouble(self) -> str:
        """Why not."""
        return self._shelf.trouble

    async def current(self, scope: Scope) -> bool:
        """Whether everything is known here that this session may have seen. Soon so, if the shelf answers."""
        if monotonic() < self._trusted_at:
            return False
        if scope.current_at == scope.observed:
            return True
        observed = scope.observed
        try:
            await self._shelf.barrier()
        except Gone:
            return False
        if monotonic() < self._trusted_at:
            return False  # meanwhile one of several nodes has come back
        scope.current_at = observed
        return True

    # What is read

    async def lying(self, name: str) -> Found | None:
        """What lies there under this name, good or not. Raises Gone."""
        (found,) = await self._shelf.entries([name], (), self._tags.learn)
        return found

    async def find(self, wanted: Wanted, held: Entry | None, *, anew: bool) -> tuple[str, Entry | None]:
        """What lies there, or whether this process is to load it for all: then the token for that.

        `held` is what this process has, and may find to be good again. With `anew` that is to be replaced,
        and is what another process replaces already.
        """
        try:
            if not anew and wanted.codec is not None:  # it was looked for
                return await self._first(wanted)
            if anew:
                token, found = await self._lock(wanted)
                if found is not None and found.expires > monotonic() and _newer(found, held):
                    return token, found
                return token, None if token else held
            also = () if held is None else [tag.name for tag, _ in held.note]
            found = (await self._entries([wanted], also)).get(wanted.key)
            if found is None and held is not None and held.alive():
                found = held
            return ("", found) if found is not None else await self._first(wanted)
        except (Gone, DatabaseError):
            return "", None

    async def find_many(self, asked: Sequence[Wanted]) -> dict[str, Entry]:
        """The same for many; loads of several processes are not shared."""
        try:
            found = await self._entries(asked)
            missing = [each.tags for each in asked if each.key not in found]
            if missing:
                await self._shelf.note(list(dict.fromkeys(chain.from_iterable(missing))), self._tags.learn)
        except (Gone, DatabaseError):
            return {}
        return found

    async def _entries(self, asked: Sequence[Wanted], also: Iterable[str] = ()) -> dict[str, Entry]:
        """What lies there and is good. What is known of their tags is known here afterwards."""
        # Tags are known as long as somebody holds them.
        tags = [self._tags.get(tag) for tag in {*also, *chain.from_iterable([each.tags for each in asked])}]
        unknown = [tag.name for tag in tags if tag.version < 0]
        named = [each for each in asked if each.codec is not None]
        lying = await self._shelf.entries([each.name for each in named], unknown, self._tags.learn)
        found = [(each, it) for each, it in zip(named, lying, strict=True) if it is not None]
        parts = [self._tags.get(tag) for tag in {tag for _, it in found for tag, _ in it.tags}]
        unknown = [tag.name for tag in parts if tag.version < 0]
        if unknown:
            await self._shelf.learn(unknown, self._tags.learn)
        held = {tag.name: tag for tag in [*tags, *parts]}
        taken = {each.key: self._looks.made(each, it, held) for each, it in found}
        return {key: entry for key, entry in taken.items() if isinstance(entry, Entry)}

    async def _lock(self, wanted: Wanted) -> tuple[str, Entry | None]:
        """A token, if nobody else loads it; what lies there. What is known of its tags is known here then."""
        token = f"{self._id}.{next(self._tokens):x}"
        first, lying = await self._shelf.note(wanted.tags, self._tags.learn, lock=wanted.name, token=token)
        found = None if lying is None else await self._looks.whole(wanted, lying)
        return token if first else "", found

    async def _first(self, wanted: Wanted) -> tuple[str, Entry | None]:
        if wanted.codec is None:
            await self._shelf.note(wanted.tags, self._tags.learn)
            return "", None
        token, lying = await self._lock(wanted)
        if token or lying is not None:
            return token, lying
        began = monotonic()
        try:
            return await self._wait(wanted, began + WAIT_S)
        finally:
            self._events.cache_waited("process", monotonic() - began)

    async def _wait(self, wanted: Wanted, deadline: float) -> tuple[str, Entry | None]:
        """Another process loads it. If that fails, this one is to."""
        name = wanted.name
        while True:
            told = self._waiting.setdefault(name, asyncio.Event())
            try:
                await self._shelf.wait_for(name)
                # Whoever has ended before knew of nobody who waits, and would tell nobody.
                token, lying = await self._lock(wanted)
                if token or lying is not None:
                    return token, lying
                async with asyncio.timeout(deadline - monotonic()):
                    await told.wait()
                found = await self._entries([wanted])
            except TimeoutError:
                return "", None
            finally:
                if self._waiting.get(name) is told:
                    del self._waiting[name]
            if wanted.key in found:
                return "", found[wanted.key]

    async def note(self, wanted: Wanted) -> bool:
        """What is known of its tags is known here afterwards, unless this is False."""
        try:
            await self._shelf.note(wanted.tags, self._tags.learn)
        except (Gone, DatabaseError):
            return False
        return True

    def keep(self, wanted: Wanted, entry: Entry, token: str) -> None:
        """Put it on the shelf, for all. Nobody waits until it is there."""
        assert wanted.codec is not None
        try:
            how, packed = pack(wanted.codec.encode(entry.value))
        except (TypeError, msgspec.MsgspecError):  # it is not what its type says
            self.give_up(wanted, token)
            return
        ahead = time.time() - monotonic()
        found = Found(
            [(tag.name, version) for tag, version in entry.note],
            (entry.position.timeline, entry.position.offset),
            {tag: (position.timeline, position.offset) for tag, position in entry.older.items()},
            entry.expires + ahead,
            entry.until + ahead,
            how,
            packed,
        )
        self._shelf.keep(wanted.name, found, entry.until - monotonic(), token)

    def give_up(self, wanted: Wanted, token: str) -> None:
        """Somebody else may load it."""
        self._shelf.keep(wanted.name, None, 0, token)

    # What is written: scope.Announcer

    async def announce(self, tags: Sequence[str]) -> tuple[Sequence[str], Message | None]:
        """A transaction is about to change these."""
        told = await self._shelf.announce(tags)
        untold = [tag for tag in tags if tag not in told]
        return told, self._message(untold) if untold else None

    def settle(self, tags: Sequence[str], position: Position | None) -> None:
        """What was announced has happened at this position, or has not."""
        self._shelf.settle(tags, position)

    async def invalidate(self, tags: Sequence[str], position: Position) -> None:
        """They have changed, unannounced. Raises Unavailable."""
        if await self._shelf.tell(tags, position):
            raise Unavailable(f"the shared cache: {self.trouble or 'it does not answer'}")

    async def followed(self) -> str:
        """Up to where changes of rows have been told, as `follow` has noted it. Raises Unavailable."""
        try:
            return await self._shelf.followed()
        except Gone as error:
            raise Unavailable(f"the shared cache: {self.trouble or error}") from error

    async def follow(self, place: str) -> None:
        """Up to here. Raises Unavailable."""
        try:
            await self._shelf.follow(place)
        except Gone as error:
            raise Unavailable(f"the shared cache: {self.trouble or error}") from error

    def owe(self, tags: Iterable[str], position: Position) -> None:
        """The same, as soon as it can be told."""
        self._owed.update(dict.fromkeys(tags, position))
        if self._paying is None or self._paying.done():
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def _pay(self) -> None:
        while self._owed:
            owed, self._owed = self._owed, {}
            untold = await self._shelf.tell(list(owed), max(owed.values()))
            if untold:
                self._owed = {**{tag: owed[tag] for tag in untold}, **self._owed}
                await asyncio.sleep(OWE_S)

    # What is heard: shelf.Heard

    @property
    def grace_s(self) -> float:
        """Others may still have no connection."""
        return GRACE_S if monotonic() >= self._trusted_at else 0.0

    def gone(self, tags: Iterable[str]) -> None:
        """What depends on them is good no longer."""
        self._tags.unknown(tags)

    def kept(self, key: str) -> None:
        """Another process has loaded it."""
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.set()

    def again(self, mine: Callable[[str], bool] | None = None) -> None:
        """Nobody heard what was told before: of no tag, or of none of these, anything is known."""
        self._events.cache_shared("up" if self._trusted_at == math.inf else "back")
        if mine is None or monotonic() < self._trusted_at:
            self._trusted_at = monotonic() + GRACE_S
        self._tags.shares = True
        self._tags.unknown(mine if mine is None else filter(mine, list(self._tags.known)))

    def lost(self, mine: Callable[[str], bool] | None = None) -> None:
        """Until it is there again each process knows only what it does itself, or nothing of these tags."""
        if self._tags.shares:
            self._events.cache_shared("down")
        if mine is not None:
            self._tags.unknown(filter(mine, list(self._tags.known)))
            return
        self._tags.shares = False
        self._looks.lost()


def _shelf(
    urls: Sequence[str],
    passwords: Sequence[str | None],
    application: str,
    *,
    heard: Heard,
    written: Callable[[], Awaitable[Position]],
) -> Shelf | Shelves:
    if len(urls) == 1:
        return Shelf(urls[0], passwords[0], application, heard=heard, written=written)
    return Shelves(urls, passwords, application, heard=heard, written=written)


def _newer(found: Entry, held: Entry | None) -> bool:
    """Whether another process has made it anew. Clocks are told apart to less than a millisecond."""
    return held is None or found.until > held.until + 0.001

"""Several shelves, as one: keys and tags each belong to one of them (ring.py). The same interface as Shelf.

    article:7 ─► ring ─► shelf 2: the entry, its lock, its own tag, and the tag of everything there
    author:42 ─► ring ─► shelf 1: that tag, whichever entries have it

What lies on one shelf may depend on tags of all: it is good as long as they are, which whoever takes it down
knows, since he hears of each tag on the connection by which he has learnt of it. So an entry is checked
against the tags of its own shelf when it is kept, and against all others when it is read.

A shelf that is lost takes its keys and tags with it: nothing that depends on them is kept anywhere until it
is back, and a moment longer, until every process is connected to it again and tells of what it writes. The
others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from outgrow.runtime.bookmark import Position
from outgrow.runtime.cache.redis import Gone
from outgrow.runtime.cache.shelf import Found, Heard, Learn, Shelf
from outgrow.runtime.cache.tags import EVERYTHING
from outgrow.runtime.ring import Ring

V = TypeVar("V")


class Shelves:
    """One for each of these URLs, with its password. Calls raise Gone when the shelf that they need is."""

    def __init__(
        self,
        urls: Sequence[str],
        passwords: Sequence[str | None],
        application: str,
        *,
        heard: Heard,
        written: Callable[[], Awaitable[Position]],
    ) -> None:
        self._ring = Ring(urls)
        self._used: set[int] = set()
        self._back: dict[int, asyncio.TimerHandle] = {}
        self._heard = heard
        self._shelves = [
            Shelf(url, password, application, heard=Ear(self, number), written=written)
            for number, (url, password) in enumerate(zip(urls, passwords, strict=True))
        ]
        self.everything = tuple(f"{EVERYTHING}{number}" for number in range(len(urls)))
        self._numbered = {name: number for number, name in enumerate(self.everything)}

    async def open(self) -> None:
        """Connect to all of them. One that does not answer stops nobody from starting."""
        await asyncio.gather(*(shelf.open() for shelf in self._shelves))

    async def close(self) -> None:
        """Hang up for good."""
        for back in self._back.values():
            back.cancel()
        await asyncio.gather(*(shelf.close() for shelf in self._shelves))

    @property
    def up(self) -> bool:
        """Whether any can be asked."""
        return bool(self._used)

    @property
    def trouble(self) -> str:
        """Of those that cannot."""
        told = [
            f"node {number + 1}: {shelf.trouble or 'it has just come back'}"
            for number, shelf in enumerate(self._shelves)
            if number not in self._used
        ]
        return "; ".join(told)

    def every(self, key: str) -> tuple[str, ...]:
        """The tag that everything on the shelf of this key has."""
        return (self.everything[self._ring.node(key)],)

    async def barrier(self) -> None:
        """See Shelf. Of tags whose shelf is gone nothing is known here, so nothing is served by them."""
        asked = [self._shelves[number] for number in self._used]
        answers = await asyncio.gather(*(shelf.barrier() for shelf in asked), return_exceptions=True)
        failed = [shelf for shelf, answer in zip(asked, answers, strict=True) if answer is not None]
        if len(failed) == len(asked) or any(shelf.up for shelf in failed):
            raise Gone

    def entry(
        self, key: str, tags: Sequence[str], learn: Learn, then: Callable[[Found | None], V]
    ) -> asyncio.Future[V]:
        """See Shelf. With tags on other shelves it is an exchange with each of them, at once."""
        home, split = self._home(key), self._known(tags)
        mine = split.pop(home, [])
        if home not in self._used:
            return _gone()
        if not split:
            return self._shelves[home].entry(key, mine, learn, then)
        learning = [self._shelves[number].learn(names, learn) for number, names in split.items()]
        found = self._shelves[home].entry(key, mine, learn, lambda found: found)

        async def whole() -> V:
            await asyncio.gather(*learning, return_exceptions=True)
            return then(await found)

        return asyncio.ensure_future(whole())

    async def entries(self, keys: Sequence[str], tags: Sequence[str], learn: Learn) -> list[Found | None]:
        """See Shelf. What is on a shelf that is gone does not lie there."""
        learning = self.learn(tags, learn)
        at: dict[int, list[str]] = {}
        for key in keys:
            if (home := self._home(key)) in self._used:
                at.setdefault(home, []).append(key)
        asked = [self._shelves[number].entries(names, (), learn) for number, names in at.items()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await learning
        found: dict[str, Found | None] = {}
        for names, answer in zip(at.values(), answers, strict=True):
            if not isinstance(answer, BaseException):
                found.update(zip(names, answer, strict=True))
            elif not isinstance(answer, Gone):
                raise answer
        return [found.get(key) for key in keys]

    def learn(self, tags: Sequence[str], learn: Learn) -> asyncio.Future[Any]:
        """See Shelf. Of tags whose shelf is gone nothing is learnt."""
        asked = [self._shelves[number].learn(names, learn) for number, names in self._known(tags).items()]
        return asyncio.gather(*asked, return_exceptions=True)

    async def note(
        self, tags: Sequence[str], learn: Learn, *, lock: str = "", token: str = ""
    ) -> tuple[bool, Found | None]:
        """See Shelf. There is no lock for what nobody could keep, since a tag's shelf is gone."""
        split = self._known(tags)
        if lock and not self._used.issuperset([self._home(lock), *map(self._of, tags)]):
            raise Gone
        home = self._home(lock) if lock else next(iter(split), -1)
        if home < 0:
            return False, None
        first = self._shelves[home].note(split.pop(home, []), learn, lock=lock, token=token)
        others = [self._shelves[number].note(names, learn) for number, names in split.items()]
        locked, *noted = await asyncio.gather(first, *others, return_exceptions=True)
        for error in (each for each in (locked, *noted) if isinstance(each, BaseException)):
            if lock:  # it may be ours
                self._shelves[home].keep(lock, None, 0, token)
            if lock or not isinstance(error, Gone):
                raise error
        return (False, None) if isinstance(locked, BaseException) else locked

    def keep(self, key: str, found: Found | None, ttl_s: float, token: str = "") -> asyncio.Future[Any]:
        """See Shelf."""
        home = self._home(key)
        checked = [] if found is None else [each for each in found.tags if self._of(each[0]) == home]
        return self._shelves[home].keep(key, found, ttl_s, token, checked)

    def wait_for(self, key: str) -> asyncio.Future[Any]:
        """See Shelf."""
        return self._shelves[self._home(key)].wait_for(key)

    async def announce(self, tags: Sequence[str]) -> Sequence[str]:
        """See Shelf."""
        asked = [self._shelves[number].announce(names) for number, names in self._split(tags).items()]
        return [tag for told in await asyncio.gather(*asked) for tag in told]

    async def tell(self, tags: Sequence[str], position: Position) -> Sequence[str]:
        """See Shelf."""
        asked = [self._shelves[number].tell(names, position) for number, names in self._split(tags).items()]
        return [tag for untold in await asyncio.gather(*asked) for tag in untold]

    def settle(self, tags: Sequence[str], position: Position | None) -> None:
        """See Shelf."""
        for number, names in self._split(tags).items():
            self._shelves[number].settle(names, position)

    async def followed(self) -> str:
        """See Shelf; "" also where one has been told less than another."""
        (noted, *more) = {await shelf.followed() for shelf in self._shelves}
        return "" if more else noted

    async def follow(self, place: str) -> None:
        """See Shelf. To be told means all of them."""
        await asyncio.gather(*(shelf.follow(place) for shelf in self._shelves))

    def again(self, number: int) -> None:
        """This one is connected anew."""
        grace_s = self._heard.grace_s
        if self._used and grace_s:
            self._back[number] = asyncio.get_running_loop().call_later(grace_s, self._use, number)
        else:
            self._use(number)

    def _use(self, number: int) -> None:
        self._back.pop(number, None)
        alone = not self._used
        self._used.add(number)
        self._heard.again(None if alone else lambda tag: self._of(tag) == number)

    def lost(self, number: int) -> None:
        """This one is gone."""
        if (back := self._back.pop(number, None)) is not None:
            back.cancel()
        if number in self._used:
            self._used.discard(number)
            self._heard.lost((lambda tag: self._of(tag) == number) if self._used else None)

    def gone(self, tags: Iterable[str]) -> None:
        """What was noted of them holds no longer."""
        self._heard.gone(tags)

    def kept(self, key: str) -> None:
        """An entry that somebody waits for may be there."""
        self._heard.kept(key)

    def _of(self, tag: str) -> int:
        number = self._numbered.get(tag)
        return self._ring.node(tag) if number is None else number

    def _home(self, name: str) -> int:
        """Of an entry, whose name is its codec's and the key (wanted.Wanted): where its key's own tag is."""
        return self._ring.node(name.partition(":")[2])

    def _known(self, tags: Iterable[str]) -> dict[int, list[str]]:
        """Of those shelves of which something may be known."""
        return {number: names for number, names in self._split(tags).items() if number in self._used}

    def _split(self, tags: Iterable[str]) -> dict[int, list[str]]:
        split: dict[int, list[str]] = {}
        for tag in tags:
            for each in self.everything if tag == EVERYTHING else (tag,):
                split.setdefault(self._of(each), []).append(each)
        return split


def _gone() -> asyncio.Future[Any]:
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    failed.set_exception(Gone())
    failed.exception()  # whoever does not look at it is not told off
    return failed


class Ear:
    """What is heard of one of them."""

    def __init__(self, shelves: Shelves, number: int) -> None:
        self._shelves, self._number = shelves, number
        self.gone, self.kept = shelves.gone, shelves.kept
        self.grace_s = 0.0

    def again(self, mine: Callable[[str], bool] | None = None) -> None:
        """Its connection is a new one."""
        self._shelves.again(self._number)

    def lost(self, mine: Callable[[str], bool] | None = None) -> None:
        """It has none."""
        self._shelves.lost(self._number)

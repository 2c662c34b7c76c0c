"""Random interleavings of readers, writers, commits, invalidations and cancellations.

One rule is checked for each value that a reader gets: it is not older than what had been
acknowledged to this process, or written by the reader's own session anywhere, when the reader asked.
Each run is made by its seed alone, so a failure comes again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from outgrow import endpoints
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import TAG_LIFETIME_S, Position, Signer
from outgrow.runtime.cache import Cache
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope

SEEDS = range(60)
SIGNER = Signer({1: b"k" * 32})
STEPS = 400

TAGS = ("a", "b", "c")
KEYS = {"left": ("a",), "right": ("b", "c"), "page": ("a", "b", "c")}
"""A page is made from "left", which may be in the cache, and from what it reads of the rest itself."""

GIVEN = {**KEYS, "page": ("b", "c")}
"""The tags that are named: what a page takes from "left" it depends on without being told."""

SESSIONS = (None, 0, 1)
Versions = dict[str, int]


class World:
    """A database with a version for each tag, the process under test, sessions that also write elsewhere."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.versions = dict.fromkeys(TAGS, 0)  # what the database holds
        self.log_end = 0  # the position of its newest commit
        self.known = Position(1, 0)  # what this process knows of it
        self.acknowledged = dict.fromkeys(TAGS, 0)  # commits of this process whose effects are over
        self.own = [dict.fromkeys(TAGS, 0) for _ in range(2)]  # what each session has written, anywhere
        self.scopes = [Scope(), Scope()]
        self.gates: list[asyncio.Future[None]] = []
        self.commits: list[tuple[str, int | None, int, Position]] = []
        self.readers: list[tuple[asyncio.Task[Versions], str, Versions]] = []
        self.outcomes: dict[str, int] = {}
        self.served = 0
        events = Events()
        events.cache_read.subscribe(self.count)
        settings = endpoints.Cache(entries_max=self.random.choice([1, 2, 100]))
        self.cache = Cache(settings, events, position=lambda: self.known)

    # What can happen

    async def ask(self) -> None:
        key, session = self.random.choice(sorted(KEYS)), self.random.choice(SESSIONS)
        demanded = dict(self.acknowledged)
        if session is not None:
            demanded = {tag: max(version, self.own[session][tag]) for tag, version in demanded.items()}
        read = self.random.choice([self.read, self.read, self.read_many])
        token = request.current.set(None if session is None else self.scopes[session])
        self.readers.append((asyncio.create_task(read(key)), key, demanded))
        request.current.reset(token)

    async def let_a_load_go_on(self) -> None:
        if waiting := [gate for gate in self.gates if not gate.done()]:
            gate = self.random.choice(waiting)
            if self.random.random() < 0.1:
                gate.set_exception(OSError("the database is away"))
            else:
                gate.set_result(None)

    async def a_reader_goes_away(self) -> None:
        if self.readers:
            self.random.choice(self.readers)[0].cancel()

    async def commit(self) -> None:
        """The database has committed; the writer does not know it yet."""
        tag, session = self.random.choice(TAGS), self.random.choice(SESSIONS)
        self.commits.append((tag, session, *self.write(tag)))

    async def acknowledge(self) -> None:
        """The writer knows: its position is told, its effects take place, it may answer."""
        if self.commits:
            tag, session, version, position = self.commits.pop(self.random.randrange(len(self.commits)))
            self.known = max(self.known, position)
            self.cache.invalidate(tag)
            self.acknowledged[tag] = max(self.acknowledged[tag], version)
            if session is not None:
                self.note(session, tag, version, position, writer=self.cache._writer.id)

    async def write_elsewhere(self) -> None:
        """A session writes through another process; this one hears of it by the bookmark alone."""
        tag, session = self.random.choice(TAGS), self.random.randrange(2)
        self.note(session, tag, *self.write(tag))

    async def grow_old(self) -> None:
        """A session forgets by name what it has written, and still may not be shown the past."""
        scope = self.random.choice(self.scopes)
        token = SIGNER.encode(scope.bookmark, now=0)
        old = SIGNER.decode(token, now=TAG_LIFETIME_S + 1)
        assert old is not None
        scope.bookmark = old

    async def forget(self) -> None:
        self.cache.invalidate(self.random.choice(sorted(KEYS)))

    async def clear(self) -> None:
        self.cache.clear()

    # What it is made of

    async def step(self) -> None:
        (happen,) = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        await happen(self)
        for _ in range(self.random.choice([0, 1, 10])):
            await asyncio.sleep(0)
        self.check()

    async def finish(self) -> None:
        while self.cache.figures()["loads"] or not all(task.done() for task, _, _ in self.readers):
            await self.let_a_load_go_on()
            await asyncio.sleep(0)
        self.check()

    def check(self) -> None:
        for task, key, demanded in self.readers:
            if task.done() and not task.cancelled() and task.exception() is None:
                self.served += 1
                seen = task.result()
                for tag in KEYS[key]:
                    assert seen[tag] >= demanded[tag], f"{key} is stale in {tag}: {seen} < {demanded}"
        self.readers = [reader for reader in self.readers if not reader[0].done()]

    def count(self, prefix: str, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def write(self, tag: str) -> tuple[int, Position]:
        self.versions[tag] += 1
        self.log_end += 1
        return self.versions[tag], Position(1, self.log_end)

    def note(self, session: int, tag: str, version: int, position: Position, *, writer: int = 0) -> None:
        self.own[session][tag] = max(self.own[session][tag], version)
        self.scopes[session].bookmark.raise_to("0", position, [tag], writer=writer)

    async def read(self, key: str) -> Versions:
        return await self.cache.get(key, self.loader(key), ttl=1000, tags=GIVEN[key])

    async def read_many(self, key: str) -> Versions:
        async def load(missing: list[str]) -> dict[str, Versions]:
            return {each: await self.loader(each)() for each in missing}

        return (await self.cache.get_many([key], load, ttl=1000, tags=GIVEN.__getitem__))[key]

    def loader(self, key: str) -> Callable[[], Awaitable[Versions]]:
        async def load() -> Versions:
            await self.pause()
            seen = {tag: self.versions[tag] for tag in KEYS[key]}
            await self.pause()
            return seen

        async def load_page() -> Versions:
            read = self.random.choice([self.read, self.read_many])
            return await read("left") | await self.loader("right")()

        return load_page if key == "page" else load

    async def pause(self) -> None:
        if self.random.random() < 0.6:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.gates = [other for other in self.gates if not other.done()] + [gate]
            await gate


WEIGHTS: dict[Callable[[World], Any], float] = {
    World.ask: 10,
    World.let_a_load_go_on: 10,
    World.a_reader_goes_away: 0.5,
    World.commit: 2,
    World.acknowledge: 2,
    World.write_elsewhere: 1,
    World.grow_old: 0.5,
    World.forget: 0.3,
    World.clear: 0.1,
}


@pytest.mark.parametrize("seed", SEEDS)
async def test_nobody_is_served_the_past(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        await world.step()
    await world.finish()
    assert world.served > STEPS / 10
    assert world.outcomes.keys() == {"hit", "miss", "stale", "waited"}

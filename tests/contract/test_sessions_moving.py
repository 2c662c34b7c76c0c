"""Sessions between two stores: several processes go from one to the other, and nobody loses anything."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from outgrow import endpoints
from outgrow.endpoints import SessionStore
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.events import Events
from outgrow.runtime.sessions import Movable, Moving, Places, Sessions
from outgrow.runtime.sessions.store import AWAY, Record
from tests.support.redis import RedisServer
from tests.support.sessions import KEY, Visitor, stores

PROCESSES = 3
NAMED = {
    "memory": SessionStore("memory"),
    "sqlite": SessionStore("database"),
    "redis": SessionStore("redis"),
}
LONG_MS = 60_000
OF_MS = 1_000


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One for the module."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


class World:
    """Two kinds of store, and the stores of each process: in memory its own, elsewhere the same for all."""

    def __init__(self, old: str, new: str, url: str, server: RedisServer) -> None:
        self.old, self.new = NAMED[old], NAMED[new]
        self._url, self._server = url, server
        self.open = AsyncExitStack()

    async def store(self, named: SessionStore) -> Movable:
        url, password = "", None
        if named.engine == "redis":
            url, password = self._server.url, self._server.password
        elif named.engine == "database":
            url = self._url
        return await self.open.enter_async_context(stores(named.engine, url, password))

    async def process(self) -> Process:
        """One that knows the old store alone, so far."""
        made = {each: await self.store(each) for each in (self.old, self.new)}
        return Process(self, made)


class Process:
    """Sessions as one process of the application has them."""

    def __init__(self, world: World, made: dict[SessionStore, Movable]) -> None:
        self.world, self.made = world, made
        settings = endpoints.Sessions(engine=world.old.engine)
        self.places = Places(settings, made.__getitem__)
        self.sessions = Sessions(settings, self.places.store, {1: KEY}, Events())

    async def knows(self, home: SessionStore, also: SessionStore | None = None) -> None:
        said = endpoints.Sessions(engine=home.engine, also=also)
        await self.places.become(said)
        await self.sessions.use(self.places.store)

    async def carry(self) -> int:
        assert isinstance(self.sessions.store, Moving)
        count, left = await self.sessions.carry(time.monotonic() + 60, clear=False)
        assert not left
        return count


@pytest.fixture(params=[("memory", "redis"), ("sqlite", "redis"), ("redis", "sqlite")], ids="-".join)
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer
) -> AsyncIterator[World]:
    url = f"sqlite:///{tmp_path}/test.db"
    await migrate(url, None)
    old, new = request.param
    made = World(old, new, url, redis_server)
    yield made
    await made.open.aclose()


def record(version: int = 1, data: bytes = b'{"a":1}', moved: str = "") -> Record:
    now = int(time.time() * 1000)
    return Record(version, now, now + LONG_MS, data, moved)


def new_key() -> str:
    return random.randbytes(32).hex()


async def test_whatever_moves_it_is_found_by_everybody(world: World) -> None:
    old, new = await world.store(world.old), await world.store(world.new)
    there, back = Moving(new, old), Moving(old, new)
    key, kept = new_key(), record()
    await old.add(key, kept, LONG_MS)
    for both in (there, back):
        assert await both.load(key) == kept
        assert await both.replace(key, kept.version, record(kept.version + 1), LONG_MS)
        assert not await both.replace(key, kept.version, record(9), LONG_MS), "of that version there is none"
        kept = await both.load(key) or record(0)
    await there.carry(time.monotonic() + 60)
    assert await old.load(key) is None
    carried = await new.load(key)
    assert carried is not None and carried._replace(version=kept.version) == kept
    assert await there.load(key) == await back.load(key) == carried
    await there.remove(key)
    assert await back.load(key) is None


@pytest.mark.parametrize("cut", ["frozen", "put"])
async def test_cut_off_in_the_middle_others_finish_it(world: World, cut: str) -> None:
    old, new = await world.store(world.old), await world.store(world.new)
    for finish in (Moving(new, old), Moving(old, new)):
        key, kept = new_key(), record()
        await old.add(key, kept, LONG_MS)
        await old.freeze(key)
        frozen = await old.load(key)
        assert frozen == kept._replace(version=2, moved=AWAY)
        assert not await old.replace(key, 2, record(3), LONG_MS)
        await old.touch(key, kept.expires + OF_MS, LONG_MS + OF_MS)
        if cut == "put":
            await new.put(key, kept._replace(version=3), LONG_MS)
        assert await finish.load(key) == kept._replace(version=3)
        await Moving(new, old).carry(time.monotonic() + 60)
        assert await old.load(key) is None
        assert await finish.replace(key, 3, record(4), LONG_MS)


async def test_a_late_copy_takes_no_place(world: World) -> None:
    old, new = await world.store(world.old), await world.store(world.new)
    key, kept = new_key(), record()
    await old.add(key, kept, LONG_MS)
    both = Moving(new, old)
    await both.carry(time.monotonic() + 60)
    assert await both.replace(key, 3, record(4, b'{"a":2}'), LONG_MS)
    await new.put(key, kept._replace(version=3), LONG_MS)
    await new.put(key, kept._replace(version=4), LONG_MS)
    found = await both.load(key)
    assert found is not None and found.data == b'{"a":2}'
    await new.discard(key, 4)
    assert await new.load(key) == found, "only what nobody can change is discarded"


async def test_a_use_is_noted_wherever_it_is(world: World) -> None:
    old, new = await world.store(world.old), await world.store(world.new)
    both = Moving(new, old)
    for state in ("old", "frozen", "new"):
        key, kept = new_key(), record()
        await (new if state == "new" else old).add(key, kept, LONG_MS)
        if state == "frozen":
            await old.freeze(key)
        await both.touch(key, kept.expires + OF_MS, LONG_MS + OF_MS)
        found = await both.load(key)
        assert found is not None and found.expires == kept.expires + OF_MS, state


async def test_notes_go_along_and_what_has_expired_does_not(world: World) -> None:
    old, new = await world.store(world.old), await world.store(world.new)
    note, expired = new_key(), new_key()
    await old.add(note, record(5, b"{}", new_key()), LONG_MS)
    await old.add(expired, record()._replace(expires=1), LONG_MS)
    await Moving(new, old).carry(time.monotonic() + 60)
    found = await new.load(note)
    assert found is not None and found.version == 5 and found.moved
    assert await new.load(expired) is await old.load(expired) is await old.load(note) is None


async def test_what_lay_there_from_earlier_is_cleared(world: World) -> None:
    old, new = await world.store(world.old), await world.store(world.new)
    here, earlier = new_key(), new_key()
    await old.add(here, record(), LONG_MS)
    await new.add(earlier, record(), LONG_MS)
    count, left = await Moving(old, new).clear(time.monotonic() + 60)
    assert count >= 1 and not left
    assert await new.load(earlier) is None and await old.load(here) is not None


async def test_many_keys_take_several_turns(world: World) -> None:
    old, new = await world.store(world.old), await world.store(world.new)
    keys = [new_key() for _ in range(150)]
    for key in keys:
        await old.add(key, record(), LONG_MS)
    both, turns, left = Moving(new, old), 0, True
    while left:
        _, left = await both.carry(time.monotonic() + 0.01)
        turns += 1
    assert turns > 1
    assert [each for each in keys if await new.load(each) is None] == []
    assert {key async for key in old.keys()}.isdisjoint(keys)  # noqa: SIM118, no dictionary


async def test_a_carry_that_was_given_up_ends_before_its_process_turns_back(world: World) -> None:
    """Whoever asked for it was interrupted, and has another process bring everything back at once."""
    process = await world.process()
    old, new = process.made[world.old], process.made[world.new]
    keys = [new_key() for _ in range(150)]
    for key in keys:
        await old.add(key, record(), LONG_MS)
    await process.knows(world.old, world.new)
    await process.knows(world.new, world.old)
    carrying = asyncio.create_task(process.carry())
    while not carrying.done() and not [key async for key in new.keys()]:  # noqa: SIM118, no dictionary
        await asyncio.sleep(0)
    assert not carrying.done()
    await process.knows(world.old, world.new)
    assert carrying.done()
    await process.carry()
    assert [key for key in keys if await old.load(key) is None] == []


async def test_processes_go_over_one_by_one_while_everybody_changes_everything(world: World) -> None:
    """Visitors who go from process to process: of a change that was acknowledged, nothing is ever lost."""
    processes = [await world.process() for _ in range(PROCESSES)]
    if world.old.engine == "memory":
        del processes[1:]  # a session in memory is in one process alone
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_visits(processes, stop)) for _ in range(8)]

    async def all_know(home: SessionStore, also: SessionStore | None = None) -> None:
        for process in processes:
            await process.knows(home, also)
            await asyncio.sleep(0.02)

    old, new = world.old, world.new
    await asyncio.sleep(0.1)
    for _ in range(2):  # there, back again before the old one is left, and there for good
        await all_know(old, new)
        await all_know(new, old)
        carried = await asyncio.gather(*(process.carry() for process in processes))
        assert sum(carried) >= 8
        await all_know(old, new)
        await asyncio.gather(*(process.carry() for process in processes))
    await all_know(new, old)
    await asyncio.gather(*(process.carry() for process in processes))
    await all_know(new)
    await asyncio.sleep(0.1)
    stop.set()
    visits = await asyncio.gather(*tasks)
    assert min(visits) > 10
    for process in processes:
        assert not isinstance(process.sessions.store, Moving)


async def _visits(processes: list[Process], stop: asyncio.Event) -> int:
    """One browser: several requests at once, in any process; now and then a new id."""
    visitor = Visitor(processes[0].sessions)
    async with visitor.request() as session:
        session["user"] = 7
    rounds = 0
    while not stop.is_set():
        rounds += 1

        async def act(name: str, number: int) -> None:
            mine = Visitor(random.choice(processes).sessions, visitor.cookie)
            visit = await mine.begin()
            assert visit.session.get("user") == 7, "logged out"
            await asyncio.sleep(random.random() * 0.01)
            visit.session[name] = number
            assert await mine.end(visit) is None

        await asyncio.gather(*(act(name, rounds) for name in "abc"))
        visitor.sessions = random.choice(processes).sessions
        async with visitor.request() as session:
            if rounds % 7 == 0:
                session.rotate()
        visitor.sessions = random.choice(processes).sessions
        assert await visitor.content() == {"user": 7, "a": rounds, "b": rounds, "c": rounds}
    return rounds

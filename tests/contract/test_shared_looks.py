"""What a look at the shared cache costs: exchanges with the server, as that counts them itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from outgrow.runtime.cache import shared
from outgrow.runtime.cache.codec import codec_of
from outgrow.runtime.cache.wanted import Wanted, life_of, names
from tests.support.cache import CacheServer, Data, Process


@pytest.fixture(scope="module")
def server() -> Iterator[CacheServer]:
    made = CacheServer()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
async def two(server: CacheServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Process, Process]]:
    monkeypatch.setattr(shared, "GRACE_S", 0.0)
    data = Data()
    one, other = Process(data, server), Process(data, server)
    await asyncio.gather(one.open(), other.open())
    with server.client as client:
        client.flushdb()
    yield one, other
    await asyncio.gather(one.close(), other.close())


def asked(server: CacheServer) -> dict[str, int]:
    """How often each command came since this was called last."""
    with server.client as client:
        told = client.info("commandstats")
        client.config_resetstat()
    return {name.removeprefix("cmdstat_"): count["calls"] for name, count in told.items()}


async def test_who_looks_at_the_same_time_looks_together(two: tuple[Process, Process]) -> None:
    one, other = two
    await one.read("a")
    await one.shared.barrier()
    looked: list[float] = []
    other.events.cache_looked.subscribe(looked.append)
    asked(one.server.nodes[0])
    assert set(await asyncio.gather(*(other.read("a") for _ in range(100)))) == {0}
    assert len(looked) == 100
    assert all(0 < seconds < 5 for seconds in looked)
    assert asked(one.server.nodes[0])["mget"] == 1
    assert other.outcomes == {"shared": 100}
    assert other.loads == 0


async def test_who_goes_away_takes_the_look_from_nobody(two: tuple[Process, Process]) -> None:
    one, other = two
    await one.read("a")
    await one.shared.barrier()
    first, *rest = [asyncio.create_task(other.read("a")) for _ in range(10)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*rest) == [0] * 9
    with pytest.raises(asyncio.CancelledError):
        await first
    assert other.loads == 0


async def test_a_look_that_was_under_way_shows_nothing_that_is_gone_since(
    two: tuple[Process, Process],
) -> None:
    one, other = two
    for number in range(30):
        await one.read("a")
        await one.shared.barrier()
        looking = [asyncio.create_task(other.read("a")) for _ in range(3)]
        await asyncio.sleep(0)
        await one.write("a")
        await other.shared.barrier()
        assert await other.read("a") == number + 1
        await asyncio.gather(*looking)


async def test_a_load_asks_twice_before_it_begins(two: tuple[Process, Process]) -> None:
    """Is it there? No; then tags, lock, and whether it has come meanwhile, all at once."""
    one, _ = two
    await one.read("b")
    await one.shared.barrier()
    asked(one.server.nodes[0])
    await one.read("a")
    await one.shared.barrier()
    counted = asked(one.server.nodes[0])
    assert (counted["mget"], counted["evalsha"]) == (1, 2), "the second puts it there"


async def test_what_came_between_look_and_lock_is_not_loaded(two: tuple[Process, Process]) -> None:
    one, other = two
    await one.read("a")
    await one.shared.barrier()
    tags = names("version:a", ["a"], one.shared.everything)
    wanted = Wanted("version:a", tags, codec_of(int), life_of(60.0, 0.0))
    held = other.cache.tags.note(tags)
    asked(one.server.nodes[0])
    token, entry = await other.shared.find(wanted, None, anew=False)
    assert token, "whoever had the lock has given it back"
    assert entry is not None
    assert entry.value == 0
    assert "mget" not in asked(one.server.nodes[0])
    other.shared.give_up(wanted, token)
    assert [tag for tag, _ in entry.note] == [tag for tag, _ in held]


async def test_what_is_found_old_is_loaded_anew_by_who_finds_it(two: tuple[Process, Process]) -> None:
    """It may be the only one who asks for it in this process."""
    one, other = two
    loads: list[int] = []

    async def load() -> int:
        loads.append(1)
        return len(loads)

    async def load_many(keys: list[str]) -> dict[str, int]:
        return dict.fromkeys(keys, await load())

    assert await one.cache.get("k", load, ttl=0.05, stale="1m") == 1
    assert await one.cache.get_many(["many"], load_many, ttl=0.05, stale="1m") == {"many": 2}
    await one.shared.barrier()
    await asyncio.sleep(0.06)
    assert await other.cache.get("k", load, ttl="1m", stale="1m") == 1
    assert await other.cache.get_many(["many"], load_many, ttl="1m", stale="1m") == {"many": 2}
    async with asyncio.timeout(5):
        while len(loads) < 4:
            await asyncio.sleep(0.001)
    await other.shared.barrier()
    assert await other.cache.get("k", load) == 3
    assert await other.cache.get_many(["many"], load_many) == {"many": 4}
    assert other.outcomes["old"] >= 1

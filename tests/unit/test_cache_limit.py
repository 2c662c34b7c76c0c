"""At most so many loads run at once: the others wait their turn, and no load waits for its own parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from outgrow import endpoints
from outgrow.errors import Unavailable
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Bookmark
from outgrow.runtime.cache import Cache, limit
from outgrow.runtime.cache.limit import Limit, places_of
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope

PLACES = 2


class Loader:
    """Counts how many run at once."""

    def __init__(self) -> None:
        self.running = self.highest = self.loads = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.running += 1
        self.loads += 1
        self.highest = max(self.highest, self.running)
        await self.go.wait()
        self.running -= 1
        return self.loads


def cache_of(places: int = PLACES, *, for_sessions: bool = True) -> Cache:
    return Cache(endpoints.Cache(), Events(), position=lambda: ZERO, places=places, for_sessions=for_sessions)


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_that_run_and_all_are_served() -> None:
    cache, load = cache_of(), Loader()
    asked = [asyncio.create_task(cache.get(f"k:{each}", load)) for each in range(20)]
    asked.append(asyncio.create_task(cache.get_many(["m:1"], lambda keys: many(keys, load))))  # type: ignore[arg-type]
    await turn()
    assert cache.limit.figures() == {"running": PLACES, "waiting": 19}
    load.go.set()
    await asyncio.gather(*asked)
    assert (load.highest, load.loads) == (PLACES, 21)
    assert cache.limit.figures() == {"running": 0, "waiting": 0}


async def test_sessions_that_pass_the_cache_by_wait_their_turn_too() -> None:
    cache, load = cache_of(for_sessions=False), Loader()
    bookmark = Bookmark()
    bookmark.begin_session()
    request.current.set(Scope(bookmark))
    asked = [asyncio.create_task(cache.get("k", load)) for _ in range(5)]
    await turn()
    assert load.running == PLACES
    load.go.set()
    await asyncio.gather(*asked)
    assert (load.highest, load.loads) == (PLACES, 5)


async def test_a_load_never_waits_for_a_place_for_its_parts() -> None:
    cache, load = cache_of(1), Loader()
    load.go.set()

    async def whole() -> int:
        parts = [cache.get(f"part:{each}", load) for each in range(3)]
        found = await cache.get_many(["m:1"], lambda keys: many(keys, load))
        return sum(await asyncio.gather(*parts)) + found["m:1"]

    async with asyncio.timeout(2):
        assert await cache.get("whole", whole) == 10


async def test_what_a_load_needs_goes_before_others() -> None:
    """Somebody else has asked for the part already, which so waits for the place that its whole holds."""
    cache, load, begun = cache_of(1), Loader(), asyncio.Event()
    load.go.set()

    async def whole() -> int:
        await begun.wait()
        return await cache.get("part", load)

    first = asyncio.create_task(cache.get("whole", whole))
    await turn()
    part = asyncio.create_task(cache.get("part", load))
    await turn()
    assert cache.limit.figures()["waiting"] == 1
    begun.set()
    async with asyncio.timeout(2):
        assert set(await asyncio.gather(first, part)) == {1}
    assert cache.limit.used == 0


async def test_who_waits_gives_up_with_its_budget_and_the_old_is_served_at_once() -> None:
    cache, load = cache_of(1), Loader()
    holds = asyncio.create_task(cache.get("holds", load))
    await turn()
    with pytest.raises(Unavailable, match="longer than 10ms"):
        await cache.get("other", load, within="10ms")
    cache.limit.resize(2)
    load.go.set()
    await holds
    assert await cache.get("old", load, ttl=0.01, stale="1m") == load.loads
    load.go.clear()
    holding = [asyncio.create_task(cache.get(f"holds:{each}", load)) for each in range(2)]
    await asyncio.sleep(0.02)
    async with asyncio.timeout(1):
        assert await cache.get("old", load, ttl=0.01, stale="1m")
    load.go.set()
    await asyncio.gather(*holding)


async def test_a_place_that_comes_too_late_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "WAIT_S", 0.01)
    cache, load = cache_of(1), Loader()
    holds = asyncio.create_task(cache.get("holds", load))
    await turn()
    with pytest.raises(Unavailable) as caught:
        await cache.get("other", load)
    assert "cache.loads" in str(caught.value.hint)
    load.go.set()
    await holds
    assert await cache.get("other", load) == 2


async def test_who_goes_away_takes_no_place_with_it() -> None:
    told: list[float] = []
    places = Limit(1, told.append)
    await places.enter(1)
    waiting = asyncio.create_task(places.enter(2))
    await turn()
    places.leave()  # the place is handed over at the moment at which who waits for it goes away
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (places.figures(), told) == ({"running": 0, "waiting": 0}, [])


async def test_after_a_return_places_come_back_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "WARM_S", 0.2)
    cache, load = cache_of(8), Loader()
    cache.limit.warm_up()
    asked = [asyncio.create_task(cache.get(f"k:{each}", load)) for each in range(20)]
    await turn()
    assert load.running == 4
    async with asyncio.timeout(5):
        while load.running < 8:
            await asyncio.sleep(0.01)
    load.go.set()
    await asyncio.gather(*asked)
    assert load.highest == 8


@pytest.mark.parametrize(("pool", "places"), [(1, 1), (2, 1), (4, 3), (10, 8), (40, 30)])
def test_writes_keep_a_part_of_the_pool(pool: int, places: int) -> None:
    assert places_of(pool) == places


async def many(keys: list[str], load: Callable[[], Awaitable[int]]) -> dict[str, int]:
    return {key: await load() for key in keys}

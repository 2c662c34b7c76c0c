"""Hot keys are found, kept, and loaded ahead of their time."""

from __future__ import annotations

import random
from itertools import count
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgrow import endpoints
from outgrow.runtime.asgi import Middleware
from outgrow.runtime.bookmark import ZERO, Signer
from outgrow.runtime.cache import Cache, hot
from outgrow.runtime.cache.hot import Hot, HotKey
from outgrow.runtime.cache.memory import Entry, Reading
from outgrow.runtime.cache.store import Store
from outgrow.runtime.events import Events
from outgrow.runtime.health import Health
from tests.support.asgi import call


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(value: object = b"x") -> Entry:
    return Entry(value, Reading((), ZERO), 1e9, 1e9, "k")


def cache_of(entries_max: int = 1000, eviction: Literal["lru", "lfu", "random", "fifo"] = "lru") -> Cache:
    settings = endpoints.Cache(entries_max=entries_max, eviction=eviction)
    return Cache(settings, Events(), position=lambda: ZERO)


async def read(cache: Cache, key: str, value: object = 1) -> object:
    async def load() -> object:
        return value

    return await cache.get(key, load)


async def test_every_read_counts_however_it_ended() -> None:
    cache = cache_of()
    for number in range(30):
        await read(cache, "often")
        if number % 3 == 0:
            await read(cache, "seldom")
        if number % 10 == 0:
            cache.invalidate("often")

    async def load(keys: list[str]) -> dict[str, int]:
        return dict.fromkeys(keys, 1)

    for _ in range(5):
        await cache.get_many(["often", "third"], load)
    often, seldom, third = cache.hot.hottest(10)
    assert (often.key, seldom.key, third.key) == ("often", "seldom", "third")
    assert [each.share * 50 for each in (often, seldom, third)] == pytest.approx([35, 10, 5])
    told = msgspec.json.decode(cache.report(), type=list[HotKey])
    assert [each.key for each in told] == ["often", "seldom", "third"]
    assert sum(each.share for each in told) == pytest.approx(1)


def test_the_rate_is_of_now() -> None:
    clock = Clock()
    hot = Hot(Store(endpoints.Cache()).entries, endpoints.Cache(), clock)
    for _ in range(600):
        clock.now += 0.1
        hot.note("was")
    [was] = hot.hottest(1)
    assert was.rate == pytest.approx(10, rel=0.1)
    for _ in range(600):
        clock.now += 0.1
        hot.note("is")
    now, before = hot.hottest(2)
    assert now.key == "is" and now.rate == pytest.approx(10, rel=0.15)
    assert before.rate < 2
    assert hot.readers("is", 2.0) == pytest.approx(now.rate * 2)
    assert hot.readers("never", 2.0) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.floats(0.02, 0.15))
def test_what_is_read_much_is_never_lost_among_what_is_read_once(seed: int, hots: int, share: float) -> None:
    """However many other keys there are: with a bounded memory."""
    chance, clock = random.Random(seed), Clock()
    hot = Hot(Store(endpoints.Cache()).entries, endpoints.Cache(), clock)
    numbers = count()
    for _ in range(20_000):
        clock.now += 0.0005
        which = int(chance.random() / share)
        hot.note(f"hot:{which}" if which < hots else f"once:{next(numbers)}")
        assert len(hot._counted) <= 4096 and len(hot._heat) <= 256
    found = {each.key: each.share for each in hot.hottest(hots)}
    assert found.keys() == {f"hot:{which}" for which in range(hots)}
    assert all(share * 0.7 < seen < share * 1.3 for seen in found.values())


@pytest.mark.parametrize("eviction", ["fifo", "random", "lru", "lfu"])
async def test_nothing_pushes_out_what_is_hot(
    eviction: Literal["lru", "lfu", "random", "fifo"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "COLLECTED_EVERY_S", 0.0)
    cache = cache_of(50, eviction)
    for _ in range(100):
        await read(cache, "hot", "first")
    for number in range(500):
        await read(cache, f"cold:{number}")
    assert await read(cache, "hot", "again") == "first"
    assert cache.hot.hottest(1)[0].kept
    cache.invalidate("hot")
    assert await read(cache, "hot", "again") == "again"
    cache.clear()
    assert await read(cache, "hot", "third") == "third"
    assert cache.store.evicted >= 450, "what is kept counts as well: others had its place"


async def test_what_is_hot_no_longer_goes_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    store = Store(endpoints.Cache(entries_max=20))
    kept = Hot(store.entries, endpoints.Cache(entries_max=20), clock)
    store.entries.insert("hot", made())
    kept.note("hot", 100)
    kept.collect()
    assert list(kept.kept) == ["hot"]
    clock.now += 120
    kept.collect()
    assert not kept.kept


async def test_few_are_kept_and_within_the_limits() -> None:
    store = Store(endpoints.Cache(entries_max=50, bytes_max=100_000))
    for number in range(50):
        store.insert(f"{number}", made(b"x" * 1000))
        store.hot.note(f"{number}", 1000 - number)
    store.hot.collect()
    assert list(store.hot.kept) == [f"{number}" for number in range(5)], "a tenth of the entries"
    large = Store(endpoints.Cache(entries_max=1000, bytes_max=1_000_000))
    for number in range(100):
        large.insert(f"{number}", made(b"x" * 9_000))
        large.hot.note(f"{number}", 1000 - number)
    large.hot.collect()
    assert len(large.hot.kept) == 10, "a tenth of the bytes"
    assert 900_000 < large.bytes <= 1_000_000
    assert not Store(endpoints.Cache(entries_max=1)).hot.kept


def served(metrics: Literal["local", "public", "off"]) -> Middleware:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("the application's own path")

    settings = endpoints.Telemetry(metrics=metrics, access_log=False)
    signer = Signer({1: b"a key of at least 16"})
    hot_keys = cache_of().report
    return Middleware(
        app, signer=signer, events=Events(), health=Health(), telemetry=settings, hot_keys=hot_keys
    )


def test_keys_are_told_to_this_machine_alone() -> None:
    """Even where everybody may see the metrics."""
    for app in (served("local"), served("public")):
        assert call(app, "/metrics/keys").body == b"[]"
        assert call(app, "/metrics/keys", client=("203.0.113.9", 1)).status == 404
        assert call(app, "/metrics/keys", headers=[(b"host", b"evil.example")]).status == 404
        assert call(app, "/metrics/keys", method="POST").status == 405
    assert call(served("off"), "/metrics/keys").status == 500, "it is the application's path then"


def test_many_entries_are_counted_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "COLLECTED_MAX", 10)
    store = Store(endpoints.Cache(entries_max=100))
    for number in range(35):
        entry = made()
        entry.reads = 1
        store.insert(f"{number}", entry)
    for seen in (10, 20, 30, 35, 35):
        store.hot.collect()
        assert len(store.hot._heat) == seen


def test_a_counter_goes_on_with_the_entry_that_follows() -> None:
    store = Store(endpoints.Cache())
    first, second = made(), made()
    first.reads = 3
    store.insert("k", first)
    store.insert("k", second)
    store.insert("k", second)
    assert second.reads == 3
    store.remove("k")
    assert store.hot._counted == {"k": 3}
    assert (store.evicted, store.bytes) == (0, 0)

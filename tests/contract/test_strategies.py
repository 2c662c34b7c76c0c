"""The five strategies, each over SQLite and PostgreSQL: one suite for what they have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa

from outgrow.errors import BufferFull, Misuse
from outgrow.runtime.application import Outgrow
from outgrow.runtime.cache.behind import WriteBehind
from outgrow.runtime.cache.strategies import (
    CacheAside,
    ReadThrough,
    RefreshAhead,
    Strategy,
    WriteThrough,
)
from outgrow.runtime.database.migrate import migrate
from tests.support.behind import ALL, CREATE, counts, load, outgrow, store

FIVE: dict[str, type[Any]] = {
    each.__name__: each for each in (CacheAside, ReadThrough, WriteThrough, RefreshAhead, WriteBehind)
}


@pytest.fixture
async def og(database_url: str) -> AsyncIterator[Outgrow]:
    await migrate(database_url, None)
    opened = outgrow(database_url)
    async with opened:
        async with opened.db.write() as tx:
            await tx.execute(CREATE)
        yield opened


@pytest.fixture
def reads(og: Outgrow) -> list[str]:
    """What became of each read of the cache."""
    heard: list[str] = []
    og.events.cache_read.subscribe(lambda prefix, outcome: heard.append(outcome))
    return heard


@pytest.fixture
def strategies(og: Outgrow) -> dict[str, Strategy[str, int]]:
    """One of each, over one database, which takes longest to make: each has a key of its own, its name."""
    return {name: kind(og, name, load, store=store) for name, kind in FIVE.items()}


async def stored(og: Outgrow) -> dict[str, int]:
    async with og.db.read() as tx:
        return {row.name: row.n for row in await tx.all(ALL)}


async def test_what_was_put_is_shown_and_in_the_end_stored(
    og: Outgrow, strategies: dict[str, Strategy[str, int]]
) -> None:
    for name, strategy in strategies.items():
        assert await strategy.get(name) == 0
        for n in (1, 2):
            await strategy.put(name, n)
            assert await strategy.get(name) == n, name
        if isinstance(strategy, WriteBehind):
            assert name not in await stored(og)
            await strategy.flush()
        assert (await stored(og))[name] == 2
        assert await strategy.get(name) == 2, name


async def test_a_put_is_part_of_the_write_block_around_it(
    og: Outgrow, strategies: dict[str, Strategy[str, int]]
) -> None:
    for name, strategy in strategies.items():
        await strategy.put(name, 1)
        assert await strategy.get(name) == 1
        with pytest.raises(ZeroDivisionError):
            async with og.db.write():
                await strategy.put(name, 2)
                assert await strategy.get(name) == 2, name
                raise ZeroDivisionError
        assert await strategy.get(name) == 1, name
        async with og.db.write():
            await strategy.put(name, 3)
        assert await strategy.get(name) == 3, name


async def test_the_second_get_is_a_hit_until_it_is_dropped(
    strategies: dict[str, Strategy[str, int]], reads: list[str]
) -> None:
    for name, strategy in strategies.items():
        reads.clear()
        await strategy.get(name)
        await strategy.get(name)
        assert reads == ["miss", "hit"], name
        strategy.drop(name)
        await strategy.get(name)
        assert reads == ["miss", "hit", "miss"], name


async def test_other_entries_with_its_tags_are_forgotten_with_a_put(og: Outgrow) -> None:
    for name, kind in FIVE.items():
        strategy = kind(og, name, load, store=store, tags=lambda key: [f"page:{key}"])

        async def page(kind: str = name) -> str:
            return kind

        await og.cache.get("page", page, tags=["page:a"])
        await strategy.put("a", 1)
        assert og.cache.held("page") is None, name


async def test_readers_share_a_load_or_load_for_themselves(og: Outgrow, reads: list[str]) -> None:
    loads = 0

    async def slow(tx: Any, key: str) -> int:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.02)
        return 1

    for name, kind in FIVE.items():
        loads = 0
        strategy = kind(og, name, slow, store=store)
        await asyncio.gather(*(strategy.get("a") for _ in range(10)))
        assert loads == (10 if kind is CacheAside else 1), name


async def test_what_is_written_through_is_in_the_cache(og: Outgrow, reads: list[str]) -> None:
    strategy = WriteThrough(og, "counts", load, store=store)
    await strategy.put("a", 7)
    assert await strategy.get("a") == 7
    assert reads == ["hit"]


async def test_without_a_store_nothing_is_put(og: Outgrow) -> None:
    with pytest.raises(Misuse, match="no store"):
        await ReadThrough(og, "counts", load).put("a", 1)


async def test_what_is_hot_is_renewed_before_its_end_and_nothing_else(og: Outgrow, reads: list[str]) -> None:
    loaded: list[str] = []

    async def noted(tx: Any, key: str) -> int:
        loaded.append(key)
        return len(loaded)

    strategy: RefreshAhead[str, int] = RefreshAhead(og, "counts", noted, ttl=60, hot=5, ahead=0.5)
    for _ in range(8):
        await strategy.get("hot")
    await strategy.get("cold")
    assert loaded == ["hot", "cold"]  # neither is near its end
    for life in range(2, 5):
        for key in ("hot", "cold"):
            near_its_end(og, f"counts:{key}")
            await strategy.get(key)
        await until(lambda life=life: loaded.count("hot") == life)  # type: ignore[misc]
        await until(lambda: strategy._cache.figures()["loads"] == 0)
        for _ in range(4):  # in this life it is not hot yet
            near_its_end(og, "counts:hot")
            assert await strategy.get("hot") == len(loaded)
        assert loaded.count("hot") == life
    assert loaded.count("cold") == 1
    assert reads.count("miss") == 2  # nobody has waited for a load since


def near_its_end(og: Outgrow, key: str) -> None:
    held = og.cache.held(key)
    assert held is not None
    held.expires = monotonic() + 20


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


# Write-behind


async def test_many_puts_of_a_key_are_stored_as_one(og: Outgrow) -> None:
    told: list[tuple[Any, ...]] = []
    og.events.buffer_flushed.subscribe(lambda *values: told.append(values))
    strategy = counts(og)
    await asyncio.gather(*(strategy.put("ab"[n % 2], n) for n in range(100)))
    await strategy.flush()
    assert await stored(og) == {"a": 98, "b": 99}
    assert sum(each[4] for each in told) == 2  # values
    assert len(told) == 1 and told[0][3] <= 4  # puts that were committed apart


async def test_it_is_stored_soon_by_itself_and_when_the_process_ends(database_url: str) -> None:
    await migrate(database_url, None)
    async with (opened := outgrow(database_url)):
        async with opened.db.write() as tx:
            await tx.execute(CREATE)
        strategy = counts(opened)
        opened.flushers.start()
        await strategy.put("a", 1)
        async with asyncio.timeout(10):
            while await stored(opened) != {"a": 1}:
                await asyncio.sleep(0.01)
    ending = outgrow(database_url)
    async with ending:
        late = counts(ending, every=60.0)
        ending.flushers.start()
        await late.put("a", 2)
    async with opened:
        assert await stored(opened) == {"a": 2}


async def test_another_process_sees_and_stores_what_was_put(og: Outgrow, database_url: str) -> None:
    mine = counts(og)
    async with (other := outgrow(database_url)):
        theirs = counts(other)
        await mine.put("a", 1)
        assert await theirs.get("a") == 1
        await theirs.flush()
    assert await stored(og) == {"a": 1}
    assert await mine.get("a") == 1


async def test_what_cannot_be_stored_is_set_aside_and_shown(og: Outgrow) -> None:
    strategy = counts(og)
    for n in range(20):
        await strategy.put(f"k{n}", -1 if n == 13 else n)
    await until_flushed(strategy)
    assert await stored(og) == {f"k{n}": n for n in range(20) if n != 13}
    ((key, reason),) = await strategy.aside()
    assert key == "k13" and "CHECK" in reason.upper()
    assert strategy.flusher.seen.aside == strategy.flusher.seen.entries == 1
    assert await strategy.get("k13") == -1
    assert await strategy.try_again() == 1
    await until_flushed(strategy)
    assert len(await strategy.aside()) == 1
    await strategy.put("k13", 5)  # what is put later makes it needless
    await strategy.flush()
    assert await strategy.aside() == []
    assert await strategy.get("k13") == 5
    assert (await stored(og))["k13"] == 5


async def until_flushed(strategy: WriteBehind[str, int]) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                return await strategy.flush()
            except Exception:
                await asyncio.sleep(0)


async def test_a_full_buffer_makes_its_callers_wait_and_then_refuses(og: Outgrow) -> None:
    refused: list[str] = []
    og.events.buffer_refused.subscribe(refused.append)
    strategy = counts(og, entries_max=3, wait=0.2)
    for n in range(3):
        await strategy.put(f"k{n}", n)
    with pytest.raises(BufferFull, match="3 puts to store: no room"):
        await strategy.put("k3", 3)
    assert refused.pop() == "counts"
    with pytest.raises(BufferFull, match="in 0 s"):
        async with og.db.write():
            await strategy.put("k3", 3)
    strategy._wait_s = 20.0
    waiting = asyncio.create_task(strategy.put("k3", 3))
    await asyncio.sleep(0)
    await strategy.flush()
    await waiting
    await strategy.flush()
    assert len(await stored(og)) == 4


async def test_bytes_are_bounded_too(og: Outgrow) -> None:
    strategy = counts(og, bytes_max=1, wait=0.0)
    await strategy.put("a", 1)  # one value has room always
    with pytest.raises(BufferFull):
        await strategy.put("a", 1)


async def test_a_database_that_is_away_blames_no_value(og: Outgrow) -> None:
    strategy = counts(og)
    failing = True

    async def away(tx: Any, values: Mapping[str, int]) -> None:
        if failing:
            raise ConnectionResetError
        await store(tx, values)

    strategy._to = away
    await strategy.put("a", 1)
    for _ in range(10):
        with pytest.raises(ConnectionResetError):
            await strategy.flush()
    assert await strategy.aside() == []
    failing = False
    await strategy.flush()
    assert await stored(og) == {"a": 1}


async def test_a_session_is_shown_its_own_puts(og: Outgrow) -> None:
    from outgrow.runtime import scope as request
    from outgrow.runtime.scope import Scope

    strategy = counts(og)
    await strategy.get("a")
    scope = Scope()
    token = request.current.set(scope)
    await strategy.put("a", 1)
    request.current.reset(token)
    assert scope.wrote and scope.bookmark.tags
    assert await strategy.get("a") == 1


async def test_values_need_a_type_and_strategies_a_name_of_their_own(og: Outgrow) -> None:
    async def untyped(tx, key):  # type: ignore[no-untyped-def]
        return 1

    with pytest.raises(Misuse, match="type="):
        WriteBehind(og, "untyped", untyped, store=store)
    counts(og)
    with pytest.raises(Misuse, match="two WriteBehind"):
        counts(og)


async def test_keys_come_back_as_what_they_were(og: Outgrow) -> None:
    got: dict[int, int] = {}

    async def keep(tx: Any, values: Mapping[int, int]) -> None:
        got.update(values)

    async def of(tx: Any, key: int) -> int:
        return got.get(key, 0)

    with pytest.raises(Misuse, match="keys=int"):
        await WriteBehind(og, "texts", of, store=keep).put(7, 1)
    strategy = WriteBehind(og, "numbers", of, store=keep, keys=int)
    with pytest.raises(Misuse, match="is no"):
        await strategy.put(7, "one")  # type: ignore[arg-type]
    await strategy.put(7, 1)
    await strategy.flush()
    assert got == {7: 1}
    assert await strategy.get(7) == 1


async def test_what_was_put_before_the_database_moved_is_older(og: Outgrow) -> None:
    """Another PostgreSQL counts its transactions anew, maybe from far below."""
    strategy = counts(og)
    await strategy.put("a", 1)
    async with og.db.write() as tx:  # as it comes from a server that had counted further
        await tx.execute(sa.text("UPDATE outgrow_buffer SET turn = turn + 1000000"))
    og.db.era += 1 << 16
    await strategy.put("a", 2)
    assert await strategy.get("a") == 2
    await strategy.flush()
    assert await stored(og) == {"a": 2}


async def test_a_process_that_cannot_store_in_time_leaves_it_to_the_next(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgrow.runtime.cache.flusher.CLOSE_S", 0.1)
    await migrate(database_url, None)

    async def hang(tx: Any, values: Mapping[str, int]) -> None:
        await asyncio.Event().wait()

    async with (first := outgrow(database_url)):
        async with first.db.write() as tx:
            await tx.execute(CREATE)
        strategy = counts(first, store=hang)
        first.flushers.start()
        await strategy.put("a", 1)
    async with (second := outgrow(database_url)):
        await counts(second).flush()
        assert await stored(second) == {"a": 1}

"""The cache: each way in which readers, writers, invalidations, commits and cancellations can meet."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from outgrow import endpoints
from outgrow.errors import Misuse, OutsideUnitOfWork, Unavailable
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import ZERO, Position
from outgrow.runtime.cache import Cache
from outgrow.runtime.cache.wanted import early
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Message, Scope


class History:
    """What the cache is told of the database: the newest position that this process knows."""

    def __init__(self) -> None:
        self.position = Position(1, 0)

    def commit(self) -> Position:
        self.position = Position(1, self.position.offset + 1)
        return self.position


class Block:
    """A write block as the cache sees it (scope.UnitOfWork), committed when the test says so."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.effects: list[Callable[[Position], None]] = []
        self.tags: list[str] = []

    def stage(self, message: Message) -> None:
        raise AssertionError("the cache sends no messages")

    def after_commit(
        self, effect: Callable[[Position], None], tags: tuple[str, ...] = (), *, certain: bool = False
    ) -> None:
        self.effects.append(effect)
        self.tags.extend(tags)

    def announced_by(self, announcer: request.Announcer) -> None:
        raise AssertionError("nobody shares a cache here")

    def __enter__(self) -> Self:
        self.token = request.unit_of_work.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        request.unit_of_work.reset(self.token)

    def commit(self) -> None:
        position = self.history.commit()
        for effect in self.effects:
            effect(position)


class Slow:
    """A load that the test steps through: it has begun, it ends, it fails."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun = asyncio.Event()
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        return await asyncio.shield(self.answer)


def returning(value: Any) -> Callable[[], Any]:
    async def load() -> Any:
        return value

    return load


async def never() -> Any:
    raise AssertionError("this must come from the cache")


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def outcomes(events: Events) -> list[str]:
    heard: list[str] = []
    events.cache_read.subscribe(lambda prefix, outcome: heard.append(outcome))
    return heard


@pytest.fixture
def cache(history: History, events: Events) -> Cache:
    return Cache(endpoints.Cache(), events, position=lambda: history.position)


@pytest.fixture
def scope() -> Iterator[Scope]:
    opened = Scope()
    token = request.current.set(opened)
    yield opened
    request.current.reset(token)


async def test_the_second_get_is_a_hit(cache: Cache, outcomes: list[str]) -> None:
    assert await cache.get("article:a", returning(1)) == 1
    assert await cache.get("article:a", never) == 1
    assert outcomes == ["miss", "hit"]


async def test_none_is_a_value(cache: Cache) -> None:
    assert await cache.get("k", returning(None)) is None
    assert await cache.get("k", never) is None


@pytest.mark.parametrize("name", ["k", "tag"])
async def test_invalidate_by_key_and_by_tag(cache: Cache, name: str) -> None:
    await cache.get("k", returning(1), tags=["tag", "other"])
    cache.invalidate(name)
    assert await cache.get("k", returning(2), tags=["tag", "other"]) == 2
    cache.invalidate("unknown")
    assert await cache.get("k", never) == 2


async def test_an_entry_lives_for_its_ttl(cache: Cache, outcomes: list[str]) -> None:
    await cache.get("k", returning(1), ttl="20ms")
    assert await cache.get("k", never) == 1
    await asyncio.sleep(0.03)
    assert await cache.get("k", returning(2), ttl=0) == 2
    assert await cache.get("k", returning(3), ttl=0.0) == 3
    assert outcomes == ["miss", "hit", "miss", "miss"]


async def test_what_is_old_is_served_while_it_is_loaded_anew(cache: Cache, outcomes: list[str]) -> None:
    await cache.get("k", returning(1), ttl=0.01, stale="1m")
    await asyncio.sleep(0.02)
    slow = Slow()
    old = [await cache.get("k", slow, ttl="1m", stale="1m") for _ in range(3)]
    assert old == [1, 1, 1] and outcomes == ["miss", "old", "hit", "hit"]
    await slow.begun.wait()
    slow.answer.set_result(2)
    await asyncio.sleep(0)
    while cache.figures()["loads"]:
        await asyncio.sleep(0)
    assert await cache.get("k", returning(3), ttl="1m", stale="1m") == 2


async def test_what_is_old_is_served_while_it_cannot_be_loaded(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgrow.runtime.cache.loads.REFRESH_AGAIN_S", 0.0)
    attempts: list[int] = []

    async def fail() -> int:
        attempts.append(1)
        raise OSError("the database is away")

    await cache.get("k", returning(1), ttl=0.01, stale="1m", tags=["t"])
    await asyncio.sleep(0.02)
    for attempt in range(1, 4):
        assert await cache.get("k", fail, ttl=0.01, stale="1m", tags=["t"]) == 1
        while cache.figures()["loads"]:
            await asyncio.sleep(0)
        assert len(attempts) == attempt
    cache.invalidate("t")
    with pytest.raises(OSError, match="away"):
        await cache.get("k", fail, ttl=0.01, stale="1m", tags=["t"])


async def test_many_that_are_old_are_loaded_anew(cache: Cache) -> None:
    asked: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        return {key: len(asked) for key in keys}

    await cache.get_many(["a", "b"], load, ttl=0.01, stale="1m")
    await asyncio.sleep(0.02)
    assert await cache.get_many(["a", "b", "c"], load, ttl="1m", stale="1m") == {"a": 1, "b": 1, "c": 2}
    await asyncio.sleep(0.01)
    assert sorted(asked) == [["a", "b"], ["a", "b"], ["c"]]
    assert (await cache.get_many(["a"], load, ttl="1m", stale="1m"))["a"] > 1


async def test_what_is_used_is_loaded_anew_before_its_time(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgrow.runtime.cache.loads.early", lambda took_s, ttl_s, readers: ttl_s)
    assert await cache.get("k", returning(1)) == 1
    assert await cache.get("k", returning(2)) == 1, "nobody waits"
    await asyncio.sleep(0.01)
    assert await cache.get("k", returning(3)) == 2


def test_so_much_before_its_time() -> None:
    moments = [early(0.1, 60.0) for _ in range(10_000)]
    assert 0.09 < sum(moments) / len(moments) < 0.11, "as long as the load takes, in the mean"
    assert min(moments) >= 0
    assert early(1000.0, 1.0) <= 0.5
    assert all(0 <= early(0.1, 60.0, readers=readers) <= 30 for readers in (1, 1e3, 1e9, 1e300))


def test_the_earliest_of_many_is_earlier() -> None:
    many = sum(early(0.1, 60.0, readers=100) for _ in range(5_000)) / 5_000
    expected = 0.1 * sum(1 / each for each in range(1, 101))
    assert expected * 0.95 < many < expected * 1.05


async def test_what_is_missing_has_a_life_of_its_own(cache: Cache) -> None:
    assert await cache.get("k", returning(None), ttl="1m", missing=0.01) is None
    assert await cache.get("k", returning(1), ttl="1m", missing=0.01) is None
    await asyncio.sleep(0.02)
    assert await cache.get("k", returning(1), ttl="1m", missing=0.01) == 1


async def test_a_load_that_hangs_holds_nobody_up_for_long(cache: Cache) -> None:
    slow = Slow()
    with pytest.raises(Unavailable, match=r"longer than 0\.01"):
        await cache.get("k", slow, within=0.01)
    with pytest.raises(Unavailable, match="longer than 10ms"):
        await cache.get("k", slow, within="10ms")
    slow.answer.set_result(5)
    assert await cache.get("k", slow) == 5


@pytest.mark.parametrize(
    ("eviction", "asked", "left"),
    [("lru", "abac", "ac"), ("fifo", "abac", "bc"), ("lru", "aaabc", "bc"), ("lfu", "aaabc", "ac")],
)
async def test_what_goes_when_it_is_full(history: History, eviction: Any, asked: str, left: str) -> None:
    settings = endpoints.Cache(entries_max=2, eviction=eviction)
    cache = Cache(settings, Events(), position=lambda: history.position)
    for key in asked:
        await cache.get(key, returning(key))
    assert "".join(key for key in "abc" if cache._entries.get(key) is not None) == left


async def test_anything_goes_when_it_is_full(history: History) -> None:
    settings = endpoints.Cache(entries_max=10, eviction="random")
    cache = Cache(settings, Events(), position=lambda: history.position)
    for number in range(1000):
        await cache.get(f"k{number}", returning(number))
    assert cache.figures()["entries"] == 10
    assert any(cache._entries.get(f"k{number}") is not None for number in range(900, 989))


async def test_so_many_bytes(history: History) -> None:
    settings = endpoints.Cache(entries_max=100, bytes_max=100_000)
    cache = Cache(settings, Events(), position=lambda: history.position)
    for number in range(50):
        await cache.get(f"large:{number}", returning([b"x" * 5_000, {"and": "y" * 5_000}]))
    assert 6 <= cache.figures()["entries"] <= 10
    for number in range(200):
        await cache.get(f"small:{number}", returning(number))
    assert 90 <= cache.figures()["entries"] <= 100
    assert await cache.get("huge", returning(b"x" * 200_000)) == b"x" * 200_000
    assert await cache.get("huge", returning(b"")) == b"", "larger than all that may be kept"


async def test_written_through(cache: Cache, history: History) -> None:
    with Block(history) as block:
        cache.put("k", 1, tags=["t"])
        assert await cache.get("k", returning(0)) == 0, "it has not committed"
    block.commit()
    await asyncio.sleep(0)
    assert await cache.get("k", never) == 1
    cache.invalidate("t")
    assert await cache.get("k", returning(2)) == 2
    with pytest.raises(OutsideUnitOfWork):
        cache.put("k", 3)


async def test_written_through_behind_another(cache: Cache, history: History) -> None:
    """Effects of two transactions need not come in the order of their commits."""
    blocks = []
    for value in (1, 2):
        with Block(history) as block:
            cache.put("k", value)
        blocks.append(block)
    positions = [history.commit(), history.commit()]
    for block, position in zip(reversed(blocks), reversed(positions), strict=True):
        for effect in block.effects:
            effect(position)
    await asyncio.sleep(0)
    assert await cache.get("k", returning(2)) == 2


async def test_a_function_is_cached_by_its_arguments(cache: Cache) -> None:
    calls: list[tuple[int, int]] = []

    @cache.cached(ttl="1m", tags=lambda one, other=2: [f"one:{one}"])
    async def added(one: int, other: int = 2) -> int:
        """Both."""
        calls.append((one, other))
        return one + other

    assert [await added(1), await added(1, 2), await added(other=2, one=1)] == [3, 3, 3]
    assert await added(1, 3) == 4 and calls == [(1, 2), (1, 3)]
    added.invalidate(1, 2)
    assert await added(1) == 3 and len(calls) == 3
    cache.invalidate("one:1")
    assert await added(1, 3) == 4 and len(calls) == 4
    assert added.__doc__ == "Both." and added.key(1) != added.key("1")  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="what JSON can say"):
        await added(object())  # type: ignore[arg-type]


async def test_once_a_request(cache: Cache) -> None:
    calls: list[int] = []

    async def load() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return len(calls)

    for number in (1, 2):
        request.current.set(Scope())
        both = await asyncio.gather(cache.once("k", load), cache.once("k", load))
        assert list(both) == [number, number]
    cache.invalidate("anything")
    assert await cache.once("k", load) == 3
    request.current.set(None)
    assert await cache.once("k", load) == 4


@pytest.mark.parametrize("ttl", ["soon", "5", "5 weeks", "-1s", ""])
async def test_a_ttl_that_is_no_duration_is_told(cache: Cache, ttl: str) -> None:
    with pytest.raises(Misuse, match="is no duration"):
        await cache.get("k", returning(1), ttl=ttl)


async def test_tags_as_one_text_are_told(cache: Cache) -> None:
    with pytest.raises(Misuse, match=r"write tags=\['tag'\]"):
        await cache.get("k", returning(1), tags="tag")


async def test_the_least_recently_used_goes_first(history: History) -> None:
    cache = Cache(endpoints.Cache(entries_max=2), Events(), position=lambda: history.position)
    await cache.get("a", returning(1))
    await cache.get("b", returning(2))
    await cache.get("a", never)
    await cache.get("c", returning(3))
    assert await cache.get("a", never) == 1
    assert await cache.get("b", returning(4)) == 4
    assert cache.figures() == {"entries": 2, "loads": 0}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is forgotten is to be gone at once, with no circle left for the collector to find."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_forgotten_tags_take_no_memory(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outgrow.runtime.cache.tags.INVALIDATED_MAX", 5)
    cache = Cache(endpoints.Cache(entries_max=10), Events(), position=lambda: history.position)
    for number in range(1000):
        await cache.get(f"k{number}", returning(number), tags=[f"tag{number}"])
        cache.invalidate(f"other{number}")
    assert len(cache.tags.known) <= 2 * 11 + 5
    assert cache.tags.floor > ZERO, "what was invalidated before those is remembered as one"


@pytest.mark.parametrize("settings", [endpoints.Cache(engine="off"), endpoints.Cache(entries_max=0)])
async def test_off_keeps_and_shares_nothing(history: History, settings: endpoints.Cache) -> None:
    cache = Cache(settings, Events(), position=lambda: history.position)
    slow = Slow()
    both = [asyncio.create_task(cache.get("k", slow)) for _ in range(2)]
    await slow.begun.wait()
    await asyncio.sleep(0)
    slow.answer.set_result(1)
    assert await asyncio.gather(*both) == [1, 1]
    assert slow.calls == 2
    assert await cache.get("k", returning(2)) == 2
    assert await cache.get_many(["k", "l"], load_nothing) == {}
    assert cache.figures() == {"entries": 0, "loads": 0}
    assert await cache.check() == "off"
    cache.invalidate("k")


# Readers against invalidations


async def test_a_slow_reader_does_not_store_the_old_value_after_the_invalidation(cache: Cache) -> None:
    slow = Slow()
    reader = asyncio.create_task(cache.get("k", slow, tags=["t"]))
    await slow.begun.wait()
    cache.invalidate("t")
    slow.answer.set_result("old")
    assert await reader == "old"  # it began before the write was acknowledged
    assert await cache.get("k", returning("new"), tags=["t"]) == "new"


async def test_who_comes_after_the_invalidation_does_not_join_a_load_from_before(cache: Cache) -> None:
    old, new = Slow(), Slow()
    first = asyncio.create_task(cache.get("k", old, tags=["t"]))
    await old.begun.wait()
    cache.invalidate("t")
    second = asyncio.create_task(cache.get("k", new, tags=["t"]))
    await new.begun.wait()
    third = asyncio.create_task(cache.get("k", never, tags=["t"]))
    await asyncio.sleep(0)
    new.answer.set_result("new")
    assert await second == await third == "new"
    old.answer.set_result("old")  # the older load ends last
    assert await first == "old"
    assert await cache.get("k", never) == "new"
    assert cache.figures()["loads"] == 0


async def test_an_invalidation_in_a_block_waits_for_its_commit(cache: Cache, history: History) -> None:
    await cache.get("k", returning("old"), tags=["t"])
    with Block(history) as block:
        cache.invalidate("t")
    assert await cache.get("k", never) == "old"  # not committed yet
    block.commit()
    assert await cache.get("k", returning("new"), tags=["t"]) == "new"
    assert block.tags == ["t"]


async def test_an_invalidation_in_a_block_that_rolls_back_does_not_happen(
    cache: Cache, history: History
) -> None:
    await cache.get("k", returning("old"), tags=["t"])
    with Block(history):
        cache.invalidate("t")
    assert await cache.get("k", never) == "old"


async def test_a_load_between_commit_and_its_effect_is_not_kept(cache: Cache, history: History) -> None:
    """It may have read before the commit; nobody can tell."""
    with Block(history) as block:
        cache.invalidate("t")
    slow = Slow()
    reader = asyncio.create_task(cache.get("k", slow, tags=["t"]))
    await slow.begun.wait()
    block.commit()
    slow.answer.set_result("old")
    await reader
    assert await cache.get("k", returning("new"), tags=["t"]) == "new"


async def test_a_write_block_passes_the_cache_by(cache: Cache, history: History) -> None:
    await cache.get("k", returning("committed"))
    with Block(history):
        assert await cache.get("k", returning("uncommitted")) == "uncommitted"
        assert await cache.get_many(["k"], load_all("uncommitted")) == {"k": "uncommitted"}
        assert await cache.get("l", returning("uncommitted")) == "uncommitted"
    assert await cache.get("k", never) == "committed"
    assert await cache.get("l", returning("committed")) == "committed"


async def test_clear_also_stops_loads_under_way_from_being_kept(cache: Cache) -> None:
    slow = Slow()
    await cache.get("l", returning(1))
    reader = asyncio.create_task(cache.get("k", slow))
    await slow.begun.wait()
    cache.clear()
    slow.answer.set_result("old")
    await reader
    assert cache.figures() == {"entries": 0, "loads": 0}


# Sessions


async def test_a_session_gets_nothing_older_than_its_own_write(
    cache: Cache, history: History, scope: Scope, outcomes: list[str]
) -> None:
    """The write happened in another process, whose invalidation is not heard here."""
    await cache.get("k", returning("old"), tags=["t"])
    scope.bookmark.raise_to("0", Position(1, 7), ["t"])
    assert await cache.get("k", returning("new"), tags=["t"]) == "new"
    assert outcomes == ["miss", "stale"]
    assert await cache.get("k", never) == "new"  # what it has loaded itself is new enough
    request.current.set(None)
    assert await cache.get("k", never) == "new"


async def test_what_a_session_no_longer_knows_by_name_it_holds_against_all_that_is_older(
    cache: Cache, history: History, scope: Scope
) -> None:
    """It wrote elsewhere a minute ago; here the value from before lives for an hour."""
    request.current.set(None)
    await cache.get("k", returning("old"), ttl="1h", tags=["t"])
    request.current.set(scope)
    scope.bookmark.forgotten = Position(1, 9)
    assert await cache.get("k", returning("new"), ttl="1h", tags=["t"]) == "new"
    assert await cache.get("k", never, tags=["t"]) == "new"


async def test_a_session_that_wrote_here_alone_keeps_its_hits(cache: Cache, scope: Scope) -> None:
    await cache.get("k", returning("old"), tags=["t"])
    scope.bookmark.raise_to("0", Position(1, 9), ["t"], writer=cache._writer.id)
    assert await cache.get("k", never, tags=["t"]) == "old", "the write has invalidated what it changed"
    scope.bookmark.raise_to("0", Position(1, 10), ["t"])
    assert await cache.get("k", returning("new"), tags=["t"]) == "new"


async def test_other_sessions_keep_their_hits(cache: Cache, history: History, scope: Scope) -> None:
    scope.bookmark.raise_to("0", Position(1, 7), ["unrelated"])
    await cache.get("k", returning("value"), tags=["t"])
    assert await cache.get("k", never) == "value"
    assert await cache.get_many(["k"], load_nothing) == {"k": "value"}


async def test_a_session_does_not_join_a_load_from_before_its_write(cache: Cache, scope: Scope) -> None:
    old, new = Slow(), Slow()
    request.current.set(None)
    first = asyncio.create_task(cache.get("k", old, tags=["t"]))
    await old.begun.wait()
    request.current.set(scope)
    scope.bookmark.raise_to("0", Position(1, 7), ["t"])
    second = asyncio.create_task(cache.get("k", new, tags=["t"]))
    await new.begun.wait()
    new.answer.set_result("new")
    assert await second == "new"
    old.answer.set_result("old")
    assert await first == "old"
    request.current.set(None)
    assert await cache.get("k", never) == "new"  # the older load has not replaced it


@pytest.mark.parametrize("way", ["get", "get_many", "get inside get_many"])
async def test_a_value_is_as_old_as_its_oldest_part(cache: Cache, scope: Scope, way: str) -> None:
    """A page is made by somebody else, from a part in the cache that is older than this session's write."""

    async def part() -> str:
        return await cache.get("part", returning("new"), tags=["t"])

    async def parts(missing: list[str]) -> dict[str, str]:
        return {key: await part() for key in missing}

    async def page() -> str:
        if way == "get":
            return f"page of {await part()}"
        key = "part" if way == "get_many" else "parts"
        return f"page of {(await cache.get_many([key], parts, tags=lambda key: ['t']))[key]}"

    request.current.set(None)
    await cache.get("part", returning("old"), tags=["t"])
    elsewhere = Scope()
    elsewhere.bookmark.raise_to("0", Position(1, 9), ["u"])  # so that the page's own load is noted at 9
    request.current.set(elsewhere)
    assert await cache.get("page", page, tags=["t", "u"]) == "page of old"
    request.current.set(scope)
    scope.bookmark.raise_to("0", Position(1, 7), ["t"])
    assert await cache.get("page", returning("new page"), tags=["t", "u"]) == "new page"


async def test_a_value_made_with_an_older_part_is_kept(cache: Cache, history: History, scope: Scope) -> None:
    """Another part was invalidated after the older one was read; each part was good when it was taken."""

    async def page() -> str:
        return f"page of {await cache.get('part', never, tags=['t'])}"

    await cache.get("part", returning("old"), tags=["t"])
    history.commit()
    cache.invalidate("rest")
    assert await cache.get("page", page, tags=["t", "rest"]) == "page of old"
    assert await cache.get("page", never, tags=["t", "rest"]) == "page of old"
    # What it took from the part is as old as the part, and the rest is not.
    scope.bookmark.raise_to("0", history.position, ["rest"])
    assert await cache.get("page", never, tags=["t", "rest"]) == "page of old"
    scope.bookmark.raise_to("0", history.position, ["t"])
    assert await cache.get("page", returning("new"), tags=["t", "rest"]) == "new"


async def test_who_joined_a_load_that_then_took_an_old_part_loads_again(cache: Cache, scope: Scope) -> None:
    gate = asyncio.Event()

    async def page() -> str:
        await gate.wait()
        return f"page of {await cache.get('part', never, tags=['t'])}"

    request.current.set(None)
    await cache.get("part", returning("old"), tags=["t"])
    elsewhere = Scope()
    elsewhere.bookmark.raise_to("0", Position(1, 9), ["u"])
    request.current.set(elsewhere)
    first = asyncio.create_task(cache.get("page", page, tags=["t", "u"]))
    await asyncio.sleep(0)
    request.current.set(scope)
    scope.bookmark.raise_to("0", Position(1, 7), ["t"])
    second = asyncio.create_task(cache.get("page", returning("new page"), tags=["t", "u"]))
    await asyncio.sleep(0)
    gate.set()
    assert await first == "page of old"
    assert await second == "new page"


# Loads that are shared, fail, or are cancelled


async def test_callers_that_miss_together_share_one_load(cache: Cache, outcomes: list[str]) -> None:
    slow = Slow()
    callers = [asyncio.create_task(cache.get("k", slow)) for _ in range(5)]
    await slow.begun.wait()
    await asyncio.sleep(0)
    slow.answer.set_result("value")
    assert await asyncio.gather(*callers) == ["value"] * 5
    assert slow.calls == 1
    assert sorted(outcomes) == ["miss", *["waited"] * 4]


async def test_the_first_caller_goes_away_and_the_others_still_get_it(cache: Cache) -> None:
    slow = Slow()
    first = asyncio.create_task(cache.get("k", slow))
    await slow.begun.wait()
    second = asyncio.create_task(cache.get("k", never))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    slow.answer.set_result("value")
    assert await second == "value"
    assert await cache.get("k", never) == "value"


async def test_every_caller_goes_away_and_the_load_still_ends(cache: Cache) -> None:
    slow = Slow()
    caller = asyncio.create_task(cache.get("k", slow))
    await slow.begun.wait()
    caller.cancel()
    await asyncio.wait([caller])
    slow.answer.set_exception(OSError("nobody is left to hear it"))
    await until(lambda: cache.figures()["loads"] == 0)
    assert await cache.get("k", returning("value")) == "value"


async def test_an_error_goes_to_those_who_waited_and_is_not_kept(cache: Cache) -> None:
    slow = Slow()
    callers = [asyncio.create_task(cache.get("k", slow)) for _ in range(3)]
    await slow.begun.wait()
    await asyncio.sleep(0)
    slow.answer.set_exception(OSError("no"))
    assert [type(error) for error in await asyncio.gather(*callers, return_exceptions=True)] == [OSError] * 3
    assert await cache.get("k", returning("value")) == "value"


async def test_a_load_cancelled_from_within_harms_nobody_else(cache: Cache) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def cancelled_inside() -> None:
        begun.set()
        await gate.wait()
        raise asyncio.CancelledError

    first = asyncio.create_task(cache.get("k", cancelled_inside))
    await begun.wait()
    second = asyncio.create_task(cache.get("k", returning("value")))
    await asyncio.sleep(0)
    gate.set()
    assert await second == "value"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_value_made_from_itself_is_told(cache: Cache) -> None:
    async def itself() -> Any:
        return await cache.get("k", never)

    async with asyncio.timeout(1):
        with pytest.raises(Misuse, match="needs 'k', whose load needs 'k'"):
            await cache.get("k", itself)


async def test_a_circle_of_loads_is_told(cache: Cache) -> None:
    begun = asyncio.Event()

    async def left() -> Any:
        await begun.wait()
        return await cache.get("right", never)

    async def right() -> Any:
        begun.set()
        return await cache.get("left", never)

    async with asyncio.timeout(1):
        results = await asyncio.gather(
            cache.get("left", left), cache.get("right", right), return_exceptions=True
        )
    assert [type(result) for result in results] == [Misuse, Misuse]


async def test_values_may_be_made_from_values(cache: Cache) -> None:
    async def outer() -> Any:
        return [await cache.get("part", returning(1)), await cache.get("part", never)]

    assert await cache.get("whole", outer) == [1, 1]


@pytest.mark.parametrize("way", ["get", "get_many", "inside get_many"])
async def test_a_value_depends_on_what_its_parts_depend_on(cache: Cache, way: str) -> None:
    async def part() -> int:
        return await cache.get("part", returning(1), tags=["t"])

    async def parts(missing: list[str]) -> dict[str, int]:
        return {key: await part() for key in missing}

    async def whole() -> Any:
        if way == "get":
            return await part()
        keys = ["part" if way == "get_many" else "parts"]
        return (await cache.get_many(keys, parts, tags=lambda key: ["t"] if key == "part" else []))[keys[0]]

    for name in ("t", "part"):
        assert await cache.get("whole", whole) == 1
        assert await cache.get("whole", never) == 1
        cache.invalidate(name)
        assert await cache.get("whole", returning(2)) == 2
        cache.invalidate("whole")


# Many keys


async def test_get_many_loads_what_is_missing_and_keeps_the_order(cache: Cache, outcomes: list[str]) -> None:
    asked: list[list[str]] = []

    async def load(missing: list[str]) -> dict[str, int]:
        asked.append(missing)
        return {"surplus": 0} | {key: int(key) for key in missing if key != "404"}

    await cache.get("2", returning(2))
    assert list((await cache.get_many(["3", "2", "404", "1", "3"], load)).items()) == [
        ("3", 3),
        ("2", 2),
        ("1", 1),
    ]
    assert await cache.get_many(["1", "2", "3"], load) == {"1": 1, "2": 2, "3": 3}
    assert asked == [["3", "404", "1"]]
    assert await cache.get_many([], load) == {}
    assert outcomes == ["miss", "hit", *["miss"] * 3, *["hit"] * 3]
    assert await cache.get("surplus", returning("not kept")) == "not kept"


async def test_get_many_does_not_keep_what_was_invalidated_meanwhile(cache: Cache) -> None:
    async def load(missing: list[str]) -> dict[str, str]:
        cache.invalidate("tag of a")
        return dict.fromkeys(missing, "old")

    def tags(key: str) -> list[str]:
        return [f"tag of {key}"]

    await cache.get_many(["a", "b"], load, tags=tags)
    assert await cache.get_many(["a", "b"], load_all("new"), tags=tags) == {"a": "new", "b": "old"}


async def test_get_many_knows_the_session(cache: Cache, scope: Scope) -> None:
    request.current.set(None)
    await cache.get_many(["a", "b"], load_all("old"))
    request.current.set(scope)
    scope.bookmark.raise_to("0", Position(1, 7), ["a"])
    assert await cache.get_many(["a", "b"], load_all("new")) == {"a": "new", "b": "old"}


async def load_nothing(missing: list[str]) -> dict[str, Any]:
    return {}


def load_all(value: str) -> Callable[[list[str]], Any]:
    async def load(missing: list[str]) -> dict[str, str]:
        return dict.fromkeys(missing, value)

    return load


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_beside_others_sessions_pass_the_cache_by(
    history: History, events: Events, outcomes: list[str]
) -> None:
    cache = Cache(endpoints.Cache(), events, position=lambda: history.position, for_sessions=False)
    token = request.current.set(Scope())
    try:
        assert await cache.get("k", returning(1)) == 1
        assert await cache.get("k", never) == 1

        request.current.get().bookmark.begin_session()  # type: ignore[union-attr]
        assert await cache.get("k", returning(2)) == 2
        assert await cache.get_many(["k"], lambda keys: returning({"k": 3, "other": 4})()) == {"k": 3}
        assert outcomes == ["miss", "hit", "session", "session"]

        request.current.set(None)
        assert await cache.get("k", never) == 1, "what a session reads is not kept"
    finally:
        request.current.reset(token)


async def test_alone_again_it_begins_anew(history: History, events: Events, scope: Scope) -> None:
    cache = Cache(endpoints.Cache(), events, position=lambda: history.position, for_sessions=False)
    await cache.get("k", returning("from before the others wrote"))
    cache.serve_sessions(False)
    await cache.get("k", never)

    cache.serve_sessions(True)
    scope.bookmark.begin_session()
    assert await cache.get("k", returning(2)) == 2
    cache.serve_sessions(True)
    assert await cache.get("k", never) == 2


# --- Others write, and this process does not hear of it ----------------------------------------------


async def test_what_is_not_heard_of_lives_for_a_minute_whatever_its_ttl(
    history: History,
) -> None:
    settings = endpoints.Cache(several=True, unheard_s=60.0)
    cache = Cache(settings, Events(), position=lambda: history.position)
    await cache.get("a", returning(1), ttl="1h", stale="1h")
    entry = cache.held("a")
    assert entry is not None and entry.until - entry.born < 60 * 1.2
    await cache.get("b", returning(1), ttl="1s", stale="10s")
    short = cache.held("b")
    assert short is not None and short.until - short.born < 12, "what lives for less is as it was"


async def test_a_process_that_is_alone_no_more_forgets_what_was_to_live_for_long(history: History) -> None:
    cache = Cache(endpoints.Cache(), Events(), position=lambda: history.position)
    await cache.get("a", returning(1), ttl="1h")
    entry = cache.held("a")
    assert entry is not None and entry.expires - entry.born > 3_000
    cache.among(endpoints.Cache())
    assert cache.held("a") is entry
    cache.among(endpoints.Cache(several=True))
    assert cache.held("a") is None
    await cache.get("a", returning(1), ttl="1h")
    entry = cache.held("a")
    assert entry is not None and entry.expires - entry.born < 70

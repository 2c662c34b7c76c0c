"""A cache that several processes share: nobody is shown the past, and one of them loads for all."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop

from outgrow import endpoints
from outgrow.errors import Unavailable
from outgrow.runtime import breaker
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark
from outgrow.runtime.cache import redis, shared
from tests.support.cache import CacheServers, Data, Process, session

PROCESSES = 4
TAGS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is connected, as the tests wait for it."""
    monkeypatch.setattr(shared, "GRACE_S", 0.0)


@pytest.fixture(scope="module", params=[1, 3])
def server(request: pytest.FixtureRequest) -> Iterator[CacheServers]:
    """One node for the module, then three, but for tests that kill them."""
    made = CacheServers.made(request.param)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def own_server(request: pytest.FixtureRequest) -> Iterator[CacheServers]:
    made = CacheServers.made(getattr(request, "param", 1))
    try:
        made.start()
        yield made
    finally:
        made.stop()


async def several(server: CacheServers, data: Data) -> list[Process]:
    server.empty()
    made = [Process(data, server) for _ in range(PROCESSES)]
    await asyncio.gather(*(process.open() for process in made))
    return made


@pytest.fixture
async def processes(server: CacheServers) -> AsyncIterator[list[Process]]:
    made = await several(server, Data())
    yield made
    await asyncio.gather(*(process.close() for process in made))


@pytest.fixture
async def on_their_own(own_server: CacheServers) -> AsyncIterator[list[Process]]:
    made = await several(own_server, Data())
    yield made
    await asyncio.gather(*(process.close() for process in made))


async def test_what_one_has_loaded_others_find(processes: list[Process]) -> None:
    first, second, *_ = processes
    assert await first.read("a") == 0
    await first.shared.barrier()
    assert await second.read("a") == 0
    assert (first.loads, second.loads) == (1, 0)
    assert await second.read("a") == 0
    assert second.outcomes == {"shared": 1, "hit": 1}


def test_on_the_loop_of_the_servers(server: CacheServers) -> None:
    async def ask() -> int:
        process = Process(Data(), server)
        await process.open()
        found = await process.read("a")
        await process.close()
        return found

    assert uvloop.run(ask()) == 0


async def test_one_loads_for_all(processes: list[Process]) -> None:
    asked = [random.choice(processes).read("a", slow_s=0.1) for _ in range(500)]
    assert set(await asyncio.gather(*asked)) == {0}
    assert sum(process.loads for process in processes) == 1


async def test_what_one_changes_all_forget(processes: list[Process]) -> None:
    for process in processes:
        await process.read("a")
    await processes[0].write("a")
    for process in processes:
        await process.shared.barrier()
        assert await process.read("a") == 1


async def test_a_slow_reader_keeps_nothing_old(processes: list[Process]) -> None:
    slow, writer, other, *_ = processes
    reading = asyncio.create_task(slow.read("a", slow_s=0.1))
    while not slow.loads:
        await asyncio.sleep(0)
    await writer.write("a")
    assert await reading == 0
    await slow.shared.barrier()
    for process in (slow, writer, other):
        assert await process.read("a") == 1


@pytest.mark.parametrize("crash", ["before", "after"])
async def test_a_writer_that_dies_leaves_a_doubt_that_ends(processes: list[Process], crash: str) -> None:
    writer, reader, *_ = processes
    await reader.read("a")
    await writer.write("a", crash=crash)
    now = 1 if crash == "after" else 0
    for _ in range(3):
        await reader.shared.barrier()
        assert await reader.read("a") == now
    assert reader.loads == 4, "while it is in doubt nothing is kept"
    reader.server.end_doubts()
    assert await reader.read("a") == now
    assert await reader.read("a") == now
    assert reader.loads == 5


async def test_a_session_sees_what_it_has_seen_elsewhere(processes: list[Process]) -> None:
    """It looks at the database in one process the moment a commit shows, and then at another's memory."""
    writer, looked, cached, *_ = processes
    for _ in range(50):
        bookmark = Bookmark()
        await cached.read("a")
        writing = asyncio.create_task(writer.write("a", pause_s=0.002))
        before = looked.look("a")
        while True:
            request.current.set(session(bookmark))
            seen = looked.look("a")
            request.current.set(session(bookmark))
            assert await cached.read("a") >= seen
            if seen > before:
                break
        request.current.set(None)
        await writing


async def test_an_entry_of_another_kind_is_another_entry(processes: list[Process]) -> None:
    first, second, *_ = processes

    async def number() -> int:
        return 1

    async def text() -> str:
        return "one"

    assert await first.cache.get("it", number) == 1
    await first.shared.barrier()
    assert await second.cache.get("it", text) == "one"


async def test_what_has_no_type_stays_in_its_process(processes: list[Process]) -> None:
    first, second, *_ = processes
    made = [object(), object()]
    assert await first.cache.get("it", lambda: _later(made[0])) is made[0]
    await first.shared.barrier()
    assert await second.cache.get("it", lambda: _later(made[1])) is made[1]
    assert await first.cache.get("it", lambda: _later(None)) is made[0]


async def test_one_loads_anew_for_all(processes: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []

    async def load() -> int:
        loads.append(1)
        await asyncio.sleep(0.05)
        return len(loads)

    async def everybody() -> list[int]:
        asked = [process.cache.get("k", load, ttl=0.3, stale="1m") for process in processes * 20]
        return await asyncio.gather(*asked)

    assert set(await everybody()) == {1}
    await asyncio.sleep(0.4)
    for _ in range(5):
        assert set(await everybody()) <= {1, 2}
        await asyncio.sleep(0.02)
    assert len(loads) == 2


async def test_many_at_once(processes: list[Process]) -> None:
    first, second, *_ = processes
    asked: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, bytes]:
        asked.append(keys)
        return {key: key.encode() * 1000 for key in keys}

    keys = [f"many:{each}" for each in range(20)]
    found = await first.cache.get_many(keys[:10], load)
    await first.shared.barrier()
    assert await second.cache.get_many(keys, load) == {key: key.encode() * 1000 for key in keys}
    assert found.keys() == set(keys[:10])
    assert asked == [keys[:10], keys[10:]]


@pytest.mark.parametrize("everything", [False, True])
async def test_what_was_changed_behind_its_back_all_forget(
    processes: list[Process], everything: bool
) -> None:
    first, *_ = processes
    forgotten = first.shared.everything if everything else ["a"]
    assert [await process.read("a") for process in processes] == [0] * PROCESSES
    first.data.commit("a")
    assert [await process.read("a") for process in processes] == [0] * PROCESSES, "nobody has said so"
    await first.shared.invalidate(forgotten, first.data.position)
    for process in processes:
        await process.shared.barrier()
        assert await process.read("a") == 1


async def test_who_cannot_tell_the_others_says_so(on_their_own: list[Process]) -> None:
    first, *_ = on_their_own
    first.server.kill()
    with pytest.raises(Unavailable, match="the shared cache"):
        await first.shared.invalidate(first.shared.everything, first.data.position)


async def test_what_is_kept_when_the_server_goes_is_not_kept_for_its_whole_life(
    on_their_own: list[Process],
) -> None:
    """Nobody hears of others' writes then."""
    first, second, *_ = on_their_own
    first.cache.among(endpoints.Cache(engine="redis", unheard_s=0.3))
    assert await first.read("a") == 0
    entry = first.cache.held("version:a")
    assert entry is not None and entry.expires - entry.born > 10
    first.server.kill()
    await second.write("a")
    async with asyncio.timeout(5):
        while await first.read("a") == 0:
            await asyncio.sleep(0.01)


async def test_without_the_server_each_serves_by_itself(on_their_own: list[Process]) -> None:
    first, second, *_ = on_their_own
    await first.read("a")
    first.server.kill()
    assert await first.read("a") == 0, "nobody is known to have changed it"
    assert await second.read("b") == 0
    await second.write("b")
    assert await second.read("b") == 1
    assert [message.body for message in first.data.owed] == [b"b"]
    request.current.set(session())
    loads = first.loads
    assert await first.read("b") == await first.read("b") == 1
    assert first.loads == loads + 2, "a session is not served what may be old"
    request.current.set(None)
    first.server.start()
    for process in on_their_own:
        while process.shared.trouble:
            await asyncio.sleep(0.01)
    await first.pay()
    for process in on_their_own:
        assert await process.read("b") == 1


async def test_a_server_that_hangs_holds_nobody_up(on_their_own: list[Process]) -> None:
    first, *_ = on_their_own
    first.server.signal(signal.SIGSTOP)
    async with asyncio.timeout(5):
        assert await first.read("a") == 0
        await first.write("a")
        assert await first.read("a") == 1
    first.server.signal(signal.SIGCONT)
    while not first.shared.up:
        await asyncio.sleep(0.01)
    await first.pay()
    assert await first.read("a") == 1


async def test_a_full_server_loses_no_invalidation(server: CacheServers, processes: list[Process]) -> None:
    """Not even a tag or an entry can be kept there: what is told about them still is."""
    first, second, *_ = processes
    server.fill()
    assert [await process.read("a") for process in processes] == [0] * PROCESSES
    for expected in (1, 2):
        assert await first.write("a") == expected, "nothing is owed, and nothing fails"
        assert first.data.owed == []
        for process in processes:
            request.current.set(session())
            assert await process.read("a") == expected
            assert await process.read("b") == 0
    loads = second.loads
    request.current.set(session())
    assert await second.read("b") == 0
    assert second.loads == loads, "memory serves sessions still"


async def test_a_slow_server_is_left_alone_until_it_is_quick(
    on_their_own: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers within the time limit, and costs more than what it saves."""
    monkeypatch.setattr(breaker, "REST_S", 0.2)
    first, second, *_ = on_their_own
    await second.read("b")

    async def slow() -> None:
        while True:
            first.server.signal(signal.SIGSTOP)
            await asyncio.sleep(0.3)
            first.server.signal(signal.SIGCONT)
            await asyncio.sleep(0.02)

    async def read() -> float:
        request.current.set(session())
        began = asyncio.get_running_loop().time()
        assert await first.read("a") == 0
        return asyncio.get_running_loop().time() - began

    slowly = asyncio.create_task(slow())
    async with asyncio.timeout(15):
        while first.shared.up:
            await read()
    assert "slowly" in first.shared.trouble
    writes = []
    for _ in range(5):
        began = asyncio.get_running_loop().time()
        await first.write("b")
        writes.append(asyncio.get_running_loop().time() - began)
    assert sorted(writes)[2] < 0.1, "nobody waits until it is told"
    assert [message.body for message in first.data.owed] == [b"b"] * 5, "and it is told again, for certain"
    first.data.owed.clear()
    async with asyncio.timeout(10):
        while await second.read("b") < 5:
            await asyncio.sleep(0.05)
    reads = []
    for _ in range(150):
        reads.append(await read())
        await asyncio.sleep(0.01)
    assert sorted(reads)[-3] < 0.25 and not first.shared.up, "trials cost nobody anything, and are not passed"
    slowly.cancel()
    await asyncio.gather(slowly, return_exceptions=True)
    first.server.signal(signal.SIGCONT)
    async with asyncio.timeout(10):
        while not first.shared.up:
            await asyncio.sleep(0.01)
    await first.write("a")
    assert await first.read("a") == 1 and not first.data.owed


@pytest.mark.parametrize(
    ("own_server", "seed"), [(nodes, seed) for nodes in (1, 3) for seed in range(4)], indirect=["own_server"]
)
async def test_nobody_is_shown_the_past(
    own_server: CacheServers, on_their_own: list[Process], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions go from process to process, read by the cache and past it, and write; crashes, restarts."""
    monkeypatch.setattr(redis, "RETRY_MAX_S", 0.1)
    monkeypatch.setattr(shared, "GRACE_S", 0.5)
    await asyncio.sleep(0)
    chance = random.Random(seed)
    data = on_their_own[0].data
    done = asyncio.Event()

    async def live() -> int:
        bookmark, seen, served = Bookmark(), dict.fromkeys(TAGS, 0), 0
        while not done.is_set():
            process, tag = chance.choice(on_their_own), chance.choice(TAGS)
            request.current.set(session(bookmark))
            for _ in range(chance.choice([1, 1, 3])):
                what = chance.random()
                if what < 0.1:
                    written = await process.write(tag, pause_s=chance.choice([0, 0.001, 0.01]))
                    seen[tag] = max(seen[tag], written)
                elif what < 0.3:
                    got = process.look(tag)
                    assert got >= seen[tag]
                    seen[tag] = got
                else:
                    got = await process.read(tag, slow_s=chance.choice([0, 0.001, 0.01]))
                    assert got >= seen[tag], f"{tag}: {got} after {seen[tag]}"
                    seen[tag], served = got, served + 1
            await asyncio.sleep(0)
        return served

    async def trouble() -> None:
        for _ in range(4):
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            if chance.random() < 0.3:
                node = chance.choice(own_server.nodes)
                node.kill()
                await asyncio.sleep(chance.uniform(0, 0.2))
                node.start()
            else:
                await chance.choice(on_their_own).write(
                    chance.choice(TAGS), crash=chance.choice(["before", "after"])
                )
        done.set()

    async with asyncio.TaskGroup() as group:
        lives = [group.create_task(live()) for _ in range(12)]
        group.create_task(trouble())
    assert sum(life.result() for life in lives) > 100
    for process in on_their_own:
        while process.shared.trouble:
            await asyncio.sleep(0.01)
    await on_their_own[0].pay()
    for process in on_their_own:
        await process.shared.barrier()
        for tag in TAGS:
            assert await process.read(tag) == data.versions.get(tag, 0), "what is old survives"


async def _later(value: object) -> object:
    return value

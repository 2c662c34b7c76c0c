"""Redis as the fleet runs it for the cache: who may do what, what goes when it is full, what is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
from redis.exceptions import NoPermissionError, ResponseError

from outgrow import endpoints
from outgrow.dashboard import caches
from outgrow.engines.redis import cache as redis_cache
from outgrow.errors import FleetError
from outgrow.growth.flush import flush
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.redis import RedisServer, program

SETTINGS = """[cache]
engine = "redis"
memory_mb = 3
eviction = "fifo"
"""
PREFIX = "outgrow:hello:cache:"
CHANNEL = "outgrow:hello:cache"
pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    program()
    application = make_application(tmp_path_factory.mktemp("fleet") / "hello")
    file = application / "outgrow.toml"
    file.write_text(file.read_text().replace("[cache]\n", SETTINGS))
    made = RunningFleet(application)
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def published(fleet: RunningFleet) -> endpoints.Cache:
    return endpoints.read(fleet.state.placement().endpoints).cache


def client(fleet: RunningFleet, user: str = "hello") -> Any:
    place = fleet.state.placement()
    secrets = endpoints.read_secrets(place.secrets if user == "hello" else place.operator_secrets)
    role = "cache" if user == "hello" else redis_cache.OPERATOR_ROLE
    url = str(published(fleet).url).replace("hello@", "")
    return redis.asyncio.Redis.from_url(url, username=user, password=secrets.passwords[role], protocol=3)


async def test_the_application_may_do_what_a_cache_needs(fleet: RunningFleet) -> None:
    assert published(fleet).engine == "redis"
    assert [node.tier for node in fleet.status().nodes if node.name == redis_cache.NAME] == ["cache"]
    async with client(fleet) as connection, connection.pubsub() as hears:
        await hears.subscribe(CHANNEL)
        assert (await hears.get_message(timeout=5))["type"] == "subscribe"
        assert await connection.set(f"{PREFIX}a", b"1", px=60_000)
        assert await connection.mget(f"{PREFIX}a", f"{PREFIX}b") == [b"1", None]
        script = connection.register_script("redis.call('SET', KEYS[1], '2') return redis.call('TIME')")
        assert len(await script(keys=[f"{PREFIX}b"])) == 2
        assert await connection.publish(CHANNEL, "gone") >= 1
        assert (await hears.get_message(timeout=5))["data"] == b"gone"
        assert await connection.delete(f"{PREFIX}a", f"{PREFIX}b") == 2


@pytest.mark.parametrize(
    "forbidden",
    [
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("INFO",),
        ("MONITOR",),
        ("PUBLISH", "another", "x"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("SUBSCRIBE", "another"),
        ("SET", "outgrow:hello:session:x", "1"),
        ("GET", "outgrow:other:cache:x"),
        ("EVAL", "return redis.call('GET', 'another')", "0"),
    ],
    ids=" ".join,
)
async def test_and_nothing_else(fleet: RunningFleet, forbidden: tuple[str, ...]) -> None:
    async with client(fleet) as connection:
        with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)permission|can't access"):
            await connection.execute_command(*forbidden)


async def test_the_fleet_may_empty_it_and_not_read_it(fleet: RunningFleet) -> None:
    place, url = fleet.state.placement(), str(published(fleet).url)
    async with client(fleet) as connection:
        await connection.set(f"{PREFIX}a", b"1")
        await asyncio.to_thread(redis_cache.empty, url, place)
        with pytest.raises(redis.exceptions.ConnectionError):
            await connection.get(f"{PREFIX}a")
        assert await connection.get(f"{PREFIX}a") is None, "on a new connection"
    async with client(fleet, redis_cache.OPERATOR) as connection:
        with pytest.raises(NoPermissionError):
            await connection.get(f"{PREFIX}a")
    with pytest.raises(FleetError, match="does not answer"):
        await asyncio.to_thread(redis_cache.empty, "redis://hello@127.0.0.1:1", place)


async def test_when_it_is_full_what_expires_next_goes_and_what_never_does_stays(fleet: RunningFleet) -> None:
    async with client(fleet) as connection:
        await connection.set(f"{PREFIX}noted", b"x")
        for number in range(400):
            await connection.set(f"{PREFIX}{number}", bytes(20_000), ex=60 + number)
        there = [await connection.exists(f"{PREFIX}{number}") for number in range(400)]
        assert await connection.get(f"{PREFIX}noted") == b"x"
        assert sum(there[:100]) < 10 < sum(there[-20:])
        figures = redis_cache.figures(str(published(fleet).url), fleet.state.placement())
        assert figures.evicted > 100 and sum(there) // 2 < figures.keys <= sum(there) + 1
        assert figures.memory_max == 3 << 20 < 2 * figures.memory
        await asyncio.to_thread(redis_cache.empty, str(published(fleet).url), fleet.state.placement())


async def test_the_command_shows_it_and_flushes_it(fleet: RunningFleet) -> None:
    def shown() -> int:
        return len(httpx.get(f"{fleet.url}/notes", timeout=10).raise_for_status().json()["notes"])

    await flush(fleet.directory, [])
    before = shown()
    found = await caches.look(fleet.directory)
    server, figures = found.server, redis_cache.figures(str(published(fleet).url), fleet.state.placement())
    assert found.engine == "redis" and server is not None and server.trouble is None
    assert server.memory_max == 3 << 20 and server.evicted == figures.evicted and server.keys
    [notes] = found.prefixes
    assert notes.prefix == "notes" and notes.reads == found.whole.reads >= 1 and notes.loads >= 1
    for count, tags in enumerate((["notes"], []), 1):
        _write_behind(fleet)
        assert shown() == before + count - 1, "the cache cannot know"
        await flush(fleet.directory, tags)
        assert shown() == before + count


def _write_behind(fleet: RunningFleet) -> None:
    [path] = fleet.state.placement().data.rglob("*.db")
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.execute("INSERT INTO notes (id, text) SELECT count(*) + 1, 'behind' FROM notes")


@pytest.mark.parametrize("eviction", redis_cache.POLICIES)
async def test_every_policy_is_one_that_redis_knows(eviction: redis_cache.Eviction) -> None:
    server = RedisServer("cache")
    try:
        await asyncio.to_thread(server.start, maxmemory_policy=redis_cache.POLICIES[eviction])
    finally:
        server.stop()


async def test_killed_it_is_back_empty_and_nobody_has_noticed(fleet: RunningFleet) -> None:
    async with client(fleet) as connection:
        await connection.set(f"{PREFIX}a", b"1")
    fleet.kill(redis_cache.NAME)
    assert fleet.healthy()
    wait_until(lambda: fleet.node(redis_cache.NAME).restarts == 1, "its death to be seen")
    wait_until(lambda: fleet.node(redis_cache.NAME).state == "ready", "it to be back")
    async with client(fleet) as connection:
        assert await connection.get(f"{PREFIX}a") is None
    folder = fleet.state.placement().data / redis_cache.NAME
    assert list(folder.iterdir()) == [], "nothing is written to the disk"


def test_no_password_is_to_be_seen(fleet: RunningFleet) -> None:
    place = fleet.state.placement()
    operator = endpoints.read_secrets(place.operator_secrets).passwords
    application = endpoints.read_secrets(place.secrets).passwords
    assert "cache" in application and redis_cache.OPERATOR_ROLE not in application
    shown = [path.read_text(errors="replace") for path in fleet.state.logs.iterdir()]
    shown += [path.read_text(errors="replace") for path in place.data.rglob("*") if path.is_file()]
    shown.append(place.endpoints.read_text())
    for pid in fleet.pids():
        shown.append(Path(f"/proc/{pid}/cmdline").read_text())
        shown.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
    for role in ("cache", redis_cache.OPERATOR_ROLE):
        assert not any(operator[role] in text for text in shown)
    for file in ("redis-cache.conf", "redis-cache-access.conf"):
        assert (place.data / file).stat().st_mode & 0o077 == 0

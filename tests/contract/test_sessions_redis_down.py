"""Redis killed, stopped, full: what its clients are told, and that nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from outgrow import endpoints
from outgrow.errors import SessionConflict, SessionError, SessionsUnavailable
from outgrow.runtime.events import Events
from outgrow.runtime.sessions import Sessions
from tests.support.redis import RedisServer
from tests.support.sessions import KEY, Visitor, stores


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One of this test's own."""
    made = RedisServer()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
async def sessions(server: RedisServer) -> AsyncIterator[Sessions]:
    async with stores("redis", server.url, server.password) as store:
        yield Sessions(endpoints.Sessions(engine="redis", url=server.url), store, {1: KEY}, Events())


async def again(visitor: Visitor) -> dict[str, object]:
    """What the visitor's session holds, as soon as it can be had."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await visitor.content()
            except SessionsUnavailable:
                await asyncio.sleep(0.05)


async def test_killed_in_the_middle_and_started_again(server: RedisServer, sessions: Sessions) -> None:
    """Writers never stop. Whatever was acknowledged is there afterwards; the rest was told to have failed."""
    server.kill()
    await asyncio.to_thread(server.start, appendfsync="always")
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["begun"] = True
    acknowledged: set[str] = set()
    failed: list[str] = []
    stop = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            key = f"{writer}.{number % 20}"
            number += 1
            try:
                async with visitor.request() as session:
                    session[key] = number
                acknowledged.add(key)
            except SessionConflict:
                continue
            except SessionError:
                failed.append(key)
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for writer in range(4):
            group.create_task(write(writer))
        for _ in range(3):
            before = len(acknowledged), len(failed)
            await asyncio.sleep(0.2)
            server.kill()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start, appendfsync="always")
            assert len(failed) > before[1]
            await again(visitor)
        await asyncio.sleep(0.2)
        stop.set()
    found = await again(visitor)
    assert acknowledged and acknowledged <= set(found)
    assert found["begun"] is True


async def test_a_server_that_hangs_costs_a_second_and_not_more(
    server: RedisServer, sessions: Sessions
) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            began = time.monotonic()
            visit = await visitor.begin()
            assert 0.5 < time.monotonic() - began < 2.5
            with pytest.raises(SessionsUnavailable):
                visit.session.get("user")
        began = time.monotonic()
        await visitor.begin()
        assert time.monotonic() - began < 0.1, "it is left alone for a moment"
    finally:
        server.signal(signal.SIGCONT)
    assert await again(visitor) == {"user": 7}


async def test_a_wrong_password(server: RedisServer) -> None:
    async with stores("redis", server.url, "wrong") as store:
        with pytest.raises(SessionsUnavailable, match="AuthenticationError") as caught:
            await store.check()
        assert "wrong" not in str(caught.value)


async def test_full_means_no_new_sessions_and_no_lost_ones(server: RedisServer, sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    await asyncio.to_thread(server.wait_for, b'"user":7')
    server.kill()
    await asyncio.to_thread(server.start, memory="1mb")
    assert await again(visitor) == {"user": 7}
    with pytest.raises(SessionsUnavailable, match="OutOfMemory"):
        for _ in range(500):
            async with Visitor(sessions).request() as session:
                session["filling"] = "x" * 10_000
    assert await again(visitor) == {"user": 7}


async def test_redis_forgets_by_itself(server: RedisServer) -> None:
    async with stores("redis", server.url, server.password) as store:
        settings = endpoints.Sessions(engine="redis", idle_timeout_s=0.3)
        visitor = Visitor(Sessions(settings, store, {1: KEY}, Events()))
        visit = await visitor.begin()
        visit.session["user"] = 7
        await visitor.end(visit)
        key = (await visitor.begin()).key
        assert await store.load(key) is not None
        async with asyncio.timeout(10):
            while await store.load(key) is not None:
                await asyncio.sleep(0.05)

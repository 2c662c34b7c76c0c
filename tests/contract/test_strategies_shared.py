"""The strategies in two processes that share a cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outgrow import endpoints
from outgrow.runtime import scope as request
from outgrow.runtime.application import Outgrow
from outgrow.runtime.cache.behind import WriteBehind
from outgrow.runtime.cache.strategies import CacheAside, ReadThrough, RefreshAhead, WriteThrough
from outgrow.runtime.database.migrate import migrate
from tests.support.behind import CREATE, load, outgrow, store
from tests.support.cache import CacheServer, Data, Process, session

FIVE = (CacheAside, ReadThrough, WriteThrough, RefreshAhead, WriteBehind)


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Outgrow]]:
    monkeypatch.setattr("outgrow.runtime.cache.shared.GRACE_S", 0.0)
    url = f"sqlite:///{tmp_path}/test.db"
    await migrate(url, None)
    server = CacheServer()
    server.start()
    shared = endpoints.Cache(engine="redis", url=server.url, several=True)
    opened = [outgrow(url, cache=shared, passwords={"cache": server.password}) for _ in range(2)]
    try:
        async with opened[0], opened[1]:
            async with asyncio.timeout(20), opened[0].db.write() as tx:
                await tx.execute(CREATE)
            for og in opened:
                await until_shared(og)
            yield opened
    finally:
        server.stop()


async def until_shared(og: Outgrow) -> None:
    async with asyncio.timeout(20):
        while "shared" in await trouble(og):
            await asyncio.sleep(0.01)


async def trouble(og: Outgrow) -> str:
    try:
        return await og.cache.check()
    except Exception as error:
        return str(error)


@pytest.mark.parametrize("kind", FIVE)
async def test_a_session_is_shown_in_another_process_what_it_has_put(
    two: list[Outgrow], kind: type[Any]
) -> None:
    mine, theirs = (kind(og, "counts", load, store=store) for og in two)
    scope = session()
    for n in range(1, 20):
        for strategy in (mine, theirs):
            request.current.set(session(scope.bookmark))
            assert await strategy.get("a") == n - 1
        request.current.set(scope := session(scope.bookmark))
        await (mine, theirs)[n % 2].put("a", n)
    request.current.set(None)


async def test_one_process_renews_for_all_before_the_end() -> None:
    server = CacheServer()
    server.start()
    data = Data()
    first, second = Process(data, server), Process(data, server)
    try:
        await first.open()
        await second.open()
        loads = 0

        async def bring() -> int:
            nonlocal loads
            loads += 1
            return loads

        for process in (first, second):
            assert await process.cache.get("k", bring) == 1
        held = second.cache.held("k")
        assert held is not None and loads == 1
        first.cache.renew("k", bring)
        await until_held(first, 2)
        held.until = time.monotonic() + 30  # as if it were near its end, as is what is renewed
        second.cache.renew("k", bring)  # finds what the first one has loaded
        await until_held(second, 2)
        assert loads == 2
    finally:
        await first.close()
        await second.close()
        server.stop()


async def until_held(process: Process, value: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        held = process.cache.held("k")
        if held is not None and held.value == value:
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)

"""Who gets traffic: active checks, connections that fail, and servers that all fail at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.balancing import balanced, eventually, load, quantile, request

FAST = 'balancer.health.profile = "fast"\n'


async def test_a_server_that_fails_its_deep_check_is_out_and_comes_back(tmp_path: Path) -> None:
    async with balanced(tmp_path, FAST) as it, load(it) as clients:
        running = asyncio.create_task(clients.at_rate(200, 6.0))
        await eventually(lambda: it["app-1"].count, "traffic")
        it["app-1"].health = 503
        await asyncio.sleep(2.0)
        it.shares()
        await asyncio.sleep(0.5)
        assert it.shares()["app-1"] == 0
        it["app-1"].health = 200
        await asyncio.sleep(1.2)
        it.shares()
        await asyncio.sleep(0.5)
        assert it.shares()["app-1"] > 0.3
        await running
        assert not clients.failed


async def test_the_usual_profile_counts_failures(tmp_path: Path) -> None:
    """One that fails in between is not out: three in a row are needed, and two are not three."""
    times = 'balancer.health = { interval = "200ms", timeout = "200ms" }\n'
    async with balanced(tmp_path, times) as it, load(it) as clients:
        it["app-1"].health = 503
        await eventually(lambda: it["app-1"].checked == 3, "the second failure")
        it["app-1"].health = 200
        await clients.many(90)
        assert it.shares()["app-1"] > 0.3
        checked = it["app-1"].checked
        it["app-1"].health = 503
        await eventually(lambda: it["app-1"].checked >= checked + 3, "three failures")
        await asyncio.sleep(0.1)
        await clients.many(90)
        assert it.shares()["app-1"] == 0
        assert not clients.failed


async def test_a_dead_server_is_out_at_once(tmp_path: Path) -> None:
    """Not the check finds it, which comes every ten seconds, but the first connection that fails."""
    async with balanced(tmp_path) as it, load(it) as clients:
        running = asyncio.create_task(clients.at_rate(300, 2.0))
        await asyncio.sleep(0.5)
        await it["app-2"].stop()
        latencies = await running
        assert not clients.failed and len(latencies) > 550
        assert quantile(latencies, 0.99) < 0.1


async def test_a_fault_that_all_share_empties_no_pool(tmp_path: Path) -> None:
    async with balanced(tmp_path, FAST) as it, load(it) as clients:
        for each in it.upstreams.values():
            each.health = 503
        await asyncio.sleep(2.0)
        await clients.many(60)
        assert not clients.failed
        assert min(it.shares().values()) > 0.3


async def test_what_answers_errors_is_out_for_a_while(tmp_path: Path) -> None:
    async with balanced(tmp_path, 'balancer.health.check = "shallow"\n') as it, load(it) as clients:
        it["app-1"].status = 503
        await clients.at_rate(300, 2.0)
        assert it.shares()["app-1"] < 0.1
        assert not clients.failed


async def test_a_new_server_starts_slowly(tmp_path: Path) -> None:
    slow_start = 'balancer.health = { profile = "fast", slow_start = "3s" }\n'
    async with balanced(tmp_path, slow_start, app=2) as it, load(it) as clients:
        await asyncio.sleep(3.2)  # the first two have warmed up by then
        added = it.add()
        await added.start()
        it.change()
        await eventually(lambda: added.checked, "a check")
        await clients.at_rate(300, 0.5)
        assert not clients.failed and 0.01 < it.shares()[added.name] < 0.25


async def test_what_is_asked(tmp_path: Path) -> None:
    async with balanced(tmp_path, 'balancer.health.path = "/status"\n') as it:
        assert it["app-1"].checked >= 1
        assert request().startswith(b"GET / ")

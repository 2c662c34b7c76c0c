"""The running balancer is changed under load, and no request fails."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from outgrow.supervisor.process import write_files
from outgrow.workload import File
from tests.support.balancing import Upstream, balanced, eventually, load, request


def added_has_traffic(added: Upstream) -> bool:
    return added.count > 0


@pytest.mark.alone
async def test_servers_come_and_go(tmp_path: Path) -> None:
    async with balanced(tmp_path, app=2) as it, load(it) as clients:
        running = asyncio.create_task(clients.at_rate(300, 4.0))
        await asyncio.sleep(0.3)
        for _ in range(5):
            added = it.add()
            added.seconds = 0.02
            await added.start()
            it.change()
            await eventually(partial(added_has_traffic, added), "traffic to the new server")
            it.servers[-1] = it.servers[-1]._replace(draining=True)
            it.change()
            await asyncio.sleep(0.15)
            count = added.count
            await asyncio.sleep(0.15)
            assert added.count == count, "it is draining"
            it.servers.pop()
            it.change()
            await asyncio.sleep(0.1)
            await added.stop()
        await running
        assert not clients.failed


@pytest.mark.parametrize("connections", ["kept", "new"])
async def test_algorithm_limits_and_timeouts(tmp_path: Path, connections: str) -> None:
    """Clusters are replaced, and so is the listener, with requests under way on the old ones."""
    base = 'balancer.health = { check = "shallow", profile = "fast" }\n'
    changes = [
        'balancer.algorithm = "least-connections"\n',
        'balancer.algorithm = "least-response-time"\n',
        'balancer.algorithm = "ip-hash"\n',
        "balancer.limits = { rate = 100000, body_mb = 3 }\n",
        'balancer.idle_timeout = "45s"\nbalancer.retries = 1\n',
        'balancer.algorithm = "weighted-round-robin"\n',
        "",
    ]
    data = request() if connections == "kept" else request(connection="close")
    async with balanced(tmp_path, base, app=3) as it, load(it) as clients:
        for each in it.upstreams.values():
            each.seconds = 0.03
        running = asyncio.create_task(clients.at_rate(200, 5.0, [data]))
        for change in changes:
            await asyncio.sleep(0.6)
            it.change(base + change)
        await running
        assert not clients.failed and len(clients.outcomes) >= 995


async def test_routes(tmp_path: Path) -> None:
    pools = "balancer.pools = { videos = 1 }\n"
    routed = pools + '[[balancer.routes]]\nprefix = "/videos"\npool = "videos"\n'
    async with balanced(tmp_path, pools, app=1, videos=1) as it, load(it) as clients:
        running = asyncio.create_task(clients.at_rate(300, 3.0, [request(path="/videos/1")]))
        for number in range(6):
            await asyncio.sleep(0.4)
            it.change(pools if number % 2 else routed)
            await asyncio.sleep(0.1)
        await running
        assert not clients.failed and it["videos-2"].count > 100 < it["app-1"].count


@pytest.mark.parametrize("algorithm", ["round-robin", "least-response-time"])
async def test_a_pool_comes_with_its_route_and_goes_after_it(tmp_path: Path, algorithm: str) -> None:
    base = f'balancer.algorithm = "{algorithm}"\n'
    pools = base + "balancer.pools = { videos = 1 }\n"
    routed = pools + '[[balancer.routes]]\nprefix = "/"\npool = "videos"\n'
    async with balanced(tmp_path, base, app=1) as it, load(it) as clients:
        running = asyncio.create_task(clients.at_rate(300, 3.0))
        await asyncio.sleep(0.3)
        added = it.add("videos")
        await added.start()
        it.change(routed)
        await eventually(lambda: added.count, "its traffic")
        await asyncio.sleep(0.3)
        it.change(base)
        await eventually(lambda: '"videos"' not in (it.folder / "cds.json").read_text(), "the pool to go")
        await running
        assert not clients.failed


async def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    """What Envoy refuses leaves it as it was."""
    async with balanced(tmp_path) as it, load(it) as clients:
        for name in ("pools.json", "routes.json", "lds.json", "eds-app.json"):
            for text in ("{", '{"resources": [{"@type": "x"}]}'):
                write_files([File(str(it.folder / name), text)])
                await asyncio.sleep(0.1)
        await clients.many(30)
        assert not clients.failed
        it.change("balancer.retries = 0\n")
        await asyncio.sleep(0.2)
        await clients.many(30)
        assert not clients.failed

"""What the balancer tells of its work is what it has done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outgrow.engines.envoy.figures import exposition, figures
from tests.support.balancing import balanced, eventually, load, request


async def test_figures(tmp_path: Path) -> None:
    config = 'balancer.health.profile = "fast"\nbalancer.retries = 0\nbalancer.pools = { videos = 1 }\n'
    async with balanced(tmp_path, config, app=3, videos=1) as it, load(it) as clients:
        admin = it.folder / "admin.sock"
        idle = await asyncio.to_thread(figures, admin)
        assert (idle.requests, idle.errors, idle.p50_s) == (0, 0, None)
        assert [each.name for each in idle.servers] == ["app-1", "app-2", "app-3", "videos-4"]
        for each in it.upstreams.values():
            each.seconds = 0.05
        it["app-1"].health = 503
        it.servers[1] = it.servers[1]._replace(draining=True)
        it.change()
        await asyncio.sleep(1.5)
        running = asyncio.create_task(clients.many(100, concurrency=4))
        await eventually(lambda: it["app-3"].count > 20, "load")
        busy = await asyncio.to_thread(figures, admin)
        await running
        done = await asyncio.to_thread(figures, admin)
        assert {each.name: each.state for each in busy.servers} == {
            "app-1": "unhealthy",
            "app-2": "draining",
            "app-3": "healthy",
            "videos-4": "healthy",
        }
        third = busy.servers[2]
        assert (third.pool, third.address) == ("app", str(it["app-3"].address))
        assert 1 <= third.under_way <= 4 == third.connections and 1 <= busy.under_way <= 4
        assert busy.connections == 4
        assert done.requests == done.servers[2].requests == 100 and done.errors == 0
        it["app-3"].status = 500
        await clients.many(10, data=request())
        failing = await asyncio.to_thread(figures, admin)
        assert failing.errors == 10 and failing.servers[2].failed == 10
        for _ in range(80):  # Envoy makes its quantiles every five seconds
            now = await asyncio.to_thread(figures, admin)
            if now.p50_s is not None:
                break
            await asyncio.sleep(0.1)
        assert now.p50_s == pytest.approx(0.05, abs=0.02) and now.p99_s is not None


async def test_metrics_for_a_prometheus(tmp_path: Path) -> None:
    async with balanced(tmp_path) as it, load(it) as clients:
        await clients.many(10)
        text = (await asyncio.to_thread(exposition, it.folder / "admin.sock")).decode()
        assert 'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="balancer"} 10' in text

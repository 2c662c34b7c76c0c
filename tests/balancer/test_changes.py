"""The running balancer is changed under load, and no request fails."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from tests.support.balancing import Upstream, balanced, eventually, load


def added_has_traffic(added: Upstream) -> bool:
    return added.count > 0


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

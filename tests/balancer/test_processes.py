"""Real application processes behind the balancer, killed and stopped under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

from outgrow.load.client import Answer, Failure
from tests.support.balancing import Balanced, Load, balanced, load, quantile, request, send

APP = """\
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
CHECKS = 'balancer.health = { check = "shallow", profile = "fast" }\n'


@contextlib.asynccontextmanager
async def processes(it: Balanced, folder: Path) -> AsyncIterator[dict[str, subprocess.Popen[bytes]]]:
    """An application process in place of each server."""
    (folder / "app.py").write_text(APP)
    found = {}
    try:
        for server in it.servers:
            await it[server.name].stop()
            host, port = server.address.host, str(server.address.port)
            variables = {"OUTGROW_APP": "app:app", "OUTGROW_HOST": host, "OUTGROW_PORT": port}
            found[server.name] = subprocess.Popen(
                [sys.executable, "-m", "outgrow.runtime.serve"],
                cwd=folder,
                env={**os.environ, **it.engine.environment, **variables},
                stderr=subprocess.DEVNULL,
            )
        for server in it.servers:
            async with asyncio.timeout(30):
                while isinstance(await send(server.address, request(path="/health")), Failure):
                    await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)  # they are checked every half second, and tried again after an ejection
        yield found
    finally:
        for each in found.values():
            each.kill()
            each.wait()


def since(clients: Load, moment: float) -> list[float]:
    """The latencies of what was sent after it."""
    return [latency for begun, latency, _ in clients.outcomes if begun > moment]


async def test_a_server_is_killed(tmp_path: Path) -> None:
    async with balanced(tmp_path, CHECKS, app=4) as it, processes(it, tmp_path) as found, load(it) as clients:
        running = asyncio.create_task(clients.at_rate(200, 4.0))
        await asyncio.sleep(1.0)
        found["app-2"].send_signal(signal.SIGKILL)
        killed = monotonic()
        await running
        assert not clients.failed
        assert quantile(since(clients, killed + 2.0), 0.99) < 0.2


async def test_a_server_hangs_without_dying(tmp_path: Path) -> None:
    """Its kernel still accepts connections. What it holds goes to another server when its time is up."""
    configuration = CHECKS + 'balancer.attempt_timeout = "1s"\n'
    async with (
        balanced(tmp_path, configuration, app=4) as it,
        processes(it, tmp_path) as found,
        load(it) as clients,
    ):
        running = asyncio.create_task(clients.at_rate(200, 6.0))
        await asyncio.sleep(1.0)
        found["app-2"].send_signal(signal.SIGSTOP)
        stopped = monotonic()
        await running
        assert not clients.failed
        assert max(since(clients, 0.0)) < 2.5
        assert quantile(since(clients, stopped + 2.0), 0.99) < 0.2
        found["app-2"].send_signal(signal.SIGCONT)


async def test_writes_that_a_killed_server_had_are_told_and_not_repeated(tmp_path: Path) -> None:
    async with balanced(tmp_path, CHECKS, app=4) as it, processes(it, tmp_path) as found, load(it) as clients:
        data = request("POST", body=b"order")
        running = asyncio.create_task(clients.at_rate(300, 3.0, [data]))
        await asyncio.sleep(1.0)
        found["app-3"].send_signal(signal.SIGKILL)
        await running
        assert set(clients.failed) <= {"503"} and clients.failed["503"] <= 5, "what it had under way"
        assert all(isinstance(outcome, Answer) for _, _, outcome in clients.outcomes)

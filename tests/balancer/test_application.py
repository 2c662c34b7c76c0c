"""An application process behind the balancer: whom it believes, and what it shows to whom."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outgrow.load.client import Answer, Failure
from outgrow.workload import Address
from tests.support.balancing import Balanced, balanced, request, send

APP = """\
import json
from outgrow.runtime.asgi import is_local
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    client = scope["client"]
    body = json.dumps({"client": client and client[0], "scheme": scope["scheme"], "local": is_local(scope)})
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body.encode()})
"""


@contextlib.asynccontextmanager
async def application(it: Balanced, folder: Path) -> AsyncIterator[Address]:
    """One process of it as the only server."""
    (folder / "app.py").write_text(APP)
    server = it.servers[0].address
    variables = {"OUTGROW_APP": "app:app", "OUTGROW_HOST": server.host, "OUTGROW_PORT": str(server.port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "outgrow.runtime.serve"],
        cwd=folder,
        env={**os.environ, **it.engine.environment, **variables},
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while isinstance(await send(server, request(path="/health")), Failure):
                await asyncio.sleep(0.05)
        yield server
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def told(address: Address, **headers: Any) -> dict[str, object]:
    answer = await send(address, request(host="localhost", **headers))
    assert isinstance(answer, Answer) and answer.status == 200, answer
    found: dict[str, object] = json.loads(answer.body)
    return found


FORGED: dict[str, Any] = {"x_forwarded_for": "6.6.6.6", "x_forwarded_proto": "https"}
BASE = 'balancer.health = { check = "shallow", profile = "fast" }\n'


async def test_the_client_is_who_the_balancer_says(tmp_path: Path) -> None:
    async with balanced(tmp_path, BASE, app=1) as it:
        await it["app-1"].stop()
        async with application(it, tmp_path) as server:
            await asyncio.sleep(1.2)
            seen = {"client": "127.0.0.1", "scheme": "http", "local": False}
            assert await told(it.address) == await told(it.address, **FORGED) == seen
            assert await told(server) == {**seen, "local": True}, "directly"
            forged = await told(server, **FORGED)
            assert forged == seen, "nobody else is believed"


@pytest.mark.parametrize("headers", [{}, FORGED, {"x_forwarded_for": "127.0.0.1"}])
async def test_at_layer_4_nobody_knows_the_client(tmp_path: Path, headers: dict[str, Any]) -> None:
    async with balanced(tmp_path, BASE + "balancer.layer = 4\n", app=1) as it:
        await it["app-1"].stop()
        async with application(it, tmp_path):
            await asyncio.sleep(1.2)
            assert await told(it.address, **headers) == {"client": None, "scheme": "http", "local": False}

"""What must hold between any two steps of a growth: the application serves, from one consistent database."""

from __future__ import annotations

import asyncio
import ssl

from outgrow import cluster
from outgrow.cluster.processes import Processes
from outgrow.errors import FleetError
from outgrow.growth.step import Context

WITHIN_S = 10.0
ANSWER_WITHIN_S = 2.0


_ANY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_ANY.check_hostname, _ANY.verify_mode = False, ssl.CERT_NONE
"""It asks this machine whether it answers, and tells it nothing: whose certificate it is does not matter."""


async def check(context: Context) -> None:
    """Raises FleetError when it does not hold within a few seconds."""
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while (wrong := await _wrong(context)) is not None:
        if asyncio.get_running_loop().time() > deadline:
            raise FleetError(f"the application is not as it should be between two steps: {wrong}")
        await asyncio.sleep(0.1)


async def _wrong(context: Context) -> str | None:
    status = await cluster.status(context.directory, measured=False)
    down = [node.name for node in status.nodes if node.tier and node.state != "ready"]
    if down:
        return f"{', '.join(down)} not ready"
    application = context.after.application
    encrypted = context.after.balancer.engine is not None and context.after.balancer.tls.enabled
    if not await _healthy(application.host, application.port, encrypted=encrypted):
        return f"{application.host}:{application.port}: /health/deep does not answer with 200"
    document = context.state.published()
    async with Processes(context.state.placement().control) as processes:
        # A process that has outlived a restart of the fleet hears of the new document here.
        for answer in await processes.ask("reload"):
            if answer.held:
                return "writes are held"
            if document is None or answer.epoch != document.epoch:
                return "a process does not obey the newest endpoints"
    return None


async def _healthy(host: str, port: int, *, encrypted: bool) -> bool:
    """Whether the application can do its work: the deep check answers 200."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=_ANY if encrypted else None)
            writer.write(f"GET /health/deep HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            status = (await reader.readline()).split(b" ")
            writer.close()
            return status[1:2] == [b"200"]
    except (OSError, TimeoutError):
        return False

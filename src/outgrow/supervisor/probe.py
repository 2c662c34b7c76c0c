"""Is a service ready? Asked in short turns until it is, or its time is up."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Mapping, Sequence

from outgrow.supervisor import process
from outgrow.workload import Address, Probe

ATTEMPT_S = 2.0


async def until_ready(probe: Probe, environment: Mapping[str, str]) -> None:
    """Return when the probe succeeds. `environment` is that of a command.

    Raises TimeoutError after the probe's time, and another OSError when its command cannot be executed.
    """
    async with asyncio.timeout(probe.timeout_s):
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ATTEMPT_S):
                    if await _attempt(probe, environment):
                        return
            await asyncio.sleep(probe.interval_s)


async def _attempt(probe: Probe, environment: Mapping[str, str]) -> bool:
    if probe.kind == "command":
        return await _command(probe.argv, environment)
    assert probe.address is not None
    try:
        if probe.kind == "tcp":
            return await _tcp(probe.address)
        return 200 <= await http_status(probe.address, probe.path) < 300
    except (OSError, ValueError):  # ValueError: a first line without end, so no HTTP
        return False


async def _command(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    child = process.start(argv, environment, output=subprocess.DEVNULL)
    try:
        return await child.wait() == 0
    finally:
        child.kill()
        await child.wait()


async def _tcp(address: Address) -> bool:
    _, writer = await asyncio.open_connection(address.host, address.port)
    await _close(writer)
    return True


async def http_status(address: Address, path: str) -> int:
    """What a GET is answered with; 0 for what is no HTTP. Raises OSError, or ValueError."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.host}\r\nConnection: close\r\n\r\n".encode())
        status = (await reader.readline()).split(b" ")
        return int(status[1]) if len(status) > 1 and status[1].isdigit() else 0
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

"""Is a service ready? Asked in short turns until it is, or its time is up."""

from __future__ import annotations

import asyncio
import contextlib

from outgrow.workload import Address, Probe

ATTEMPT_S = 2.0


async def until_ready(probe: Probe) -> None:
    """Return when the probe succeeds. Raises TimeoutError after its time."""
    async with asyncio.timeout(probe.timeout_s):
        while not await ready(probe):
            await asyncio.sleep(probe.interval_s)


async def ready(probe: Probe) -> bool:
    """One attempt."""
    try:
        async with asyncio.timeout(ATTEMPT_S):
            if probe.kind == "command":
                return await _command(probe.argv)
            assert probe.address is not None
            if probe.kind == "tcp":
                return await _tcp(probe.address)
            return await _http(probe.address, probe.path)
    except (OSError, TimeoutError, EOFError):
        return False


async def _command(argv: tuple[str, ...]) -> bool:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _tcp(address: Address) -> bool:
    _, writer = await asyncio.open_connection(address.host, address.port)
    await _close(writer)
    return True


async def _http(address: Address, path: str) -> bool:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.host}\r\nConnection: close\r\n\r\n".encode())
        status = (await reader.readline()).split(b" ")
        return len(status) > 1 and status[1].startswith(b"2")
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

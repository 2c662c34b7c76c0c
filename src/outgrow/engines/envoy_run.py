"""Starts an Envoy, feeds it weights, and ends it gently: python -m outgrow.engines.envoy_run PROGRAM

It works in the folder that is its working directory (see envoy.py). Envoy itself would end at once with
SIGTERM, and break what is under way.

SIGTERM ─► answers say `Connection: close` ─► the port is closed ─► what is under way ends ─► Envoy ends
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from outgrow.engines import envoy_admin
from outgrow.engines.envoy import ADMIN, DRAIN_S
from outgrow.errors import EXIT_TOLD, OutgrowError, PortTaken, tell

ANNOUNCED_S = 0.5
"""For so long answers ask clients to go before the port closes."""

DRAIN_WITHIN_S = 10.0
"""For requests under way; with what comes before, less than the supervisor's patience (envoy.py)."""

POLL_S = 0.05
UNDER_WAY = ("http.balancer.downstream_rq_active", "tcp.balancer.downstream_cx_active")


def start(program: str) -> subprocess.Popen[bytes]:
    """Envoy in this folder. Raises PortTaken, which Envoy would only write into its log."""
    _require_free(_listener_address())
    Path(ADMIN).unlink(missing_ok=True)
    workers = max(1, (os.cpu_count() or 1) // 4)
    return subprocess.Popen(
        [
            program,
            *("--config-path", "bootstrap.json", "--concurrency", str(workers)),
            # Its successor is told by files; this also lets many run beside each other.
            "--disable-hot-restart",
            *("--drain-time-s", str(DRAIN_S), "--drain-strategy", "immediate"),
            *("--log-level", "warning", "--log-format", "%Y-%m-%dT%T.%e %l %n %v"),
        ]
    )


def _listener_address() -> dict[str, Any]:
    told = json.loads(Path("lds.json").read_text())
    address: dict[str, Any] = told["resources"][0]["address"]["socket_address"]
    return address


def _require_free(address: dict[str, Any]) -> None:
    host, port = str(address["address"]), int(address["port_value"])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise PortTaken(host, port) from error


async def run(program: str) -> int:
    """Until Envoy ends, or a signal has ended it. Returns the exit code."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    envoy = start(program)
    try:
        ended = asyncio.ensure_future(asyncio.to_thread(envoy.wait))
        stop = asyncio.ensure_future(asked.wait())
        await asyncio.wait((ended, stop), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await asyncio.to_thread(drain, Path(ADMIN), envoy)
            envoy.terminate()
            await ended
            return 0
        stop.cancel()
        return ended.result()
    finally:
        envoy.kill()


def drain(admin: Path, envoy: subprocess.Popen[bytes]) -> None:
    """Return when nothing is under way any more, or it has lasted too long."""
    deadline = time.monotonic() + DRAIN_WITHIN_S
    with suppress(OSError, HTTPException):
        envoy_admin.ask(admin, "/drain_listeners?graceful&skip_exit", method="POST")
        time.sleep(ANNOUNCED_S)
        envoy_admin.ask(admin, "/drain_listeners", method="POST")
        while envoy.poll() is None and time.monotonic() < deadline and under_way(admin):
            time.sleep(POLL_S)


def under_way(admin: Path) -> int:
    """Requests, or at layer 4 connections, that have not ended. Raises OSError when nobody answers."""
    lines = envoy_admin.ask(admin, "/stats?filter=downstream_(rq|cx)_active").decode().splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    return sum(int(told.get(name, 0)) for name in UNDER_WAY)


def main(arguments: list[str]) -> int:
    """Run it; what cannot be is told in one line that the fleet reads."""
    try:
        return asyncio.run(run(arguments[0]))
    except OutgrowError as error:
        sys.stderr.write(tell(error) + "\n")
        return EXIT_TOLD


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

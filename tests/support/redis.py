"""A real Redis for tests, configured as the fleet configures its own: user, rights, durability."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal

from outgrow.engines.redis import cache as redis_cache
from outgrow.engines.redis import redis
from outgrow.engines.redis import sessions as redis_sessions
from outgrow.engines.redis.client import Account, answers
from outgrow.errors import EngineMissing
from outgrow.workload import Address
from tests.support.fleets import wait_until
from tests.support.lacking import lacking
from tests.support.ports import free_port

HOST = "127.0.0.1"
USER = "test"
OPERATOR = "operator-of-tests"


def program() -> Path:
    """The server, or a skipped test; in continuous integration it has to be there.

    OUTGROW_TEST_REDIS names another one, such as a Valkey where Redis is installed as well.
    """
    if chosen := os.environ.get("OUTGROW_TEST_REDIS"):
        return Path(chosen)
    try:
        return redis.find()
    except EngineMissing as error:
        lacking(str(error))


def in_file(directory: Path, text: bytes) -> bool:
    """Whether a server with this folder has written that to its append-only file."""
    return any(text in path.read_bytes() for path in directory.glob("appendonlydir/*.incr.aof"))


class RedisServer:
    """A server for one tier, with a folder and a port of its own. `stop` leaves nothing behind."""

    def __init__(self, tier: Literal["sessions", "cache"] = "sessions") -> None:
        self._program = program()
        self._tier = tier
        self.directory = Path(tempfile.mkdtemp(prefix="outgrow-test-redis-"))
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Without the password."""
        return f"redis://{USER}@{HOST}:{self.port}"

    @property
    def account(self) -> Account:
        """The application's."""
        return Account(HOST, self.port, USER, self.password)

    def start(self, *, memory: str = "64mb", **more: str) -> None:
        """Start it, with this said differently, and wait until it answers."""
        access, settings = self.directory / "access.conf", self.directory / "redis.conf"
        usual: redis.Settings = redis_sessions.SETTINGS
        users = redis_sessions.users(USER, self.password)
        if self._tier == "cache":
            usual, users = redis_cache.settings(64, "lru"), redis_cache.users(USER, self.password, OPERATOR)
        access.write_text(users)
        other = {name.replace("_", "-"): value for name, value in more.items()}
        address = Address(HOST, self.port)
        said = redis.configuration(address, self.directory, access, {**usual, "maxmemory": memory, **other})
        settings.write_text(said)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, settings], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 20
        while not answers(self.account):
            assert time.monotonic() < deadline and self.process.poll() is None, (
                self.directory / "log"
            ).read_text()
            time.sleep(0.02)

    def wait_for(self, text: bytes) -> None:
        """Until it has written this to its file, which it may put off while the disk is busy."""
        wait_until(lambda: in_file(self.directory, text), "it in the append-only file")

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        self.process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP: then it hangs, and does not die."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it and remove its folder."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

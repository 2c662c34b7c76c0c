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

from outgrow.engines import redis
from outgrow.engines.redis_ready import answers
from outgrow.errors import EngineMissing
from tests.support.fleets import wait_until
from tests.support.lacking import lacking
from tests.support.ports import free_port

HOST = "127.0.0.1"
USER = "test"


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
    """A server with a folder and a port of its own. `stop` leaves nothing behind."""

    def __init__(self) -> None:
        self._program = program()
        self.directory = Path(tempfile.mkdtemp(prefix="outgrow-test-redis-"))
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Without the password."""
        return f"redis://{USER}@{HOST}:{self.port}"

    def start(self, *, memory: str = "64mb", fsync: str = "everysec") -> None:
        """Start it and wait until it answers. With fsync "always" a kill takes nothing acknowledged."""
        access, settings = self.directory / "access.conf", self.directory / "redis.conf"
        access.write_text(redis.permissions(USER, self.password))
        written = redis.configuration(HOST, self.port, self.directory, access)
        settings.write_text(written.replace(redis.MEMORY, memory).replace("everysec", fsync))
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, settings], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 20
        while not answers(HOST, self.port, USER, self.password):
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

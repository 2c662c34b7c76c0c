"""The processes under test, all on the servers' core: PostgreSQL and one application at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol

from benchmarks import machine
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 30.0
SETTINGS = """
shared_buffers = 128MB
wal_level = replica
"""
"""After tests.support.postgres's own, with fsync on; everything else is PostgreSQL's default."""


class Databases(Protocol):
    """Where the versions' data is. `create` gives an empty database, `copy` a fresh copy."""

    engine: str

    def create(self, schema: str) -> str: ...
    def copy(self, schema: str, name: str = "run") -> str: ...
    def cpu_seconds(self) -> float: ...
    def close(self) -> None: ...


class SQLiteFiles:
    """A file for each schema, and for each of its copies."""

    engine = "sqlite"

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="outgrow-benchmark-"))

    def create(self, schema: str) -> str:
        return f"sqlite:///{self._directory / schema}.db"

    def copy(self, schema: str, name: str = "run") -> str:
        copy = self._directory / f"{schema}-{name}.db"
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        for suffix in ("", "-wal"):
            if (source := self._directory / f"{schema}.db{suffix}").exists():
                shutil.copyfile(source, f"{copy}{suffix}")
        return f"sqlite:///{copy}"

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class PostgresDatabases:
    """One server; a database for each schema, which is the template of its copies."""

    engine = "postgres"

    def __init__(self) -> None:
        self.server = PostgresServer(durable=True)
        self.server.initialise()
        with (self.server.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        with machine.pinned(machine.server_core()):
            self.server.start()

    def create(self, schema: str) -> str:
        self.server.execute(f'CREATE DATABASE "{schema}"')
        return self.server.url(schema)

    def copy(self, schema: str, name: str = "run") -> str:
        copy = f"{schema}_{name}"
        self.server.execute(f'DROP DATABASE IF EXISTS "{copy}" WITH (FORCE)')
        self.server.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{schema}"')
        self.server.execute("CHECKPOINT")
        return self.server.url(copy)

    def cpu_seconds(self) -> float:
        assert self.server.process is not None
        return machine.cpu_seconds([self.server.process.pid])

    def close(self) -> None:
        self.server.stop()


def open_databases(engine: str) -> Databases:
    """sqlite or postgres."""
    return SQLiteFiles() if engine == "sqlite" else PostgresDatabases()


class Application:
    """One server process of a version. `with` starts it, waits for its first answer, and ends it."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], directory: Path, port: int, probe: str
    ) -> None:
        self.port = port
        self._arguments = [sys.executable, *arguments]
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self._directory = directory
        self._probe = f"http://127.0.0.1:{port}{probe}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Application:
        with machine.pinned(machine.server_core()):
            self._process = subprocess.Popen(
                self._arguments,
                env=self.environment,
                cwd=self._directory,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def cpu_seconds(self) -> float:
        """What it has used since its start."""
        return machine.cpu_seconds([self.pid])

    def output(self) -> str:
        """What it has written."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(self._probe, timeout=5):
                    return
            except urllib.error.HTTPError as error:
                raise RuntimeError(f"{self._probe}: {error}\n{self.output()}") from None
            except OSError:
                assert self._process is not None
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(f"{self._arguments} did not start\n{self.output()}") from None
                time.sleep(0.02)


__all__ = ["Application", "Databases", "free_port", "open_databases"]

"""A real PgBouncer before the test run's PostgreSQL, configured as the fleet configures its own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from outgrow.endpoints import Node
from outgrow.engines.pgbouncer import pgbouncer
from outgrow.engines.pgbouncer.ready import answers
from outgrow.engines.postgres.postgres import CONNECTIONS
from outgrow.engines.postgres.scram import verifier
from outgrow.errors import EngineMissing
from outgrow.workload import Address
from tests.support.fleets import run
from tests.support.lacking import lacking
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, unprivileged

HOST = "127.0.0.1"


class PooledUrl(str):
    """The URL of a database; `pooler` is that of a pooler before it."""

    pooler: str


def node(url: str) -> Node:
    """What an application is told of this database."""
    if isinstance(url, PooledUrl):
        return Node("db", url.pooler, pooled=True)
    return Node("db", url)


def program() -> Path:
    """The pooler, or a skipped test; in continuous integration it has to be there."""
    try:
        return pgbouncer.find()
    except EngineMissing as error:
        lacking(str(error))


class Pooler:
    """One PgBouncer for every database of a server, with so many connections to each."""

    def __init__(self, server: PostgresServer, connections: int = CONNECTIONS) -> None:
        self._connections = connections
        self._program = program()
        self._server = server
        self.port = free_port()
        self._folder = server.directory
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until a query goes through. It does not outlive a failure."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        user, secret = self._server.user, verifier(self._server.user, self._server.password)
        self._server.execute(f"ALTER ROLE \"{user}\" PASSWORD '{secret}'")
        users = self._folder / f"pgbouncer-{self.port}-users.txt"
        users.write_text(f'"{user}" "{secret}"\n')
        address, behind = Address(HOST, self.port), Address(HOST, self._server.port)
        text = pgbouncer.configuration(address, behind, user, users, certificate=None, wait_s=5)
        text = text.replace(f"{user} = host", "* = host").replace(f" dbname={user}", "")
        text = text.replace(f"_size = {CONNECTIONS}", f"_size = {self._connections}")
        settings = self._folder / f"pgbouncer-{self.port}.ini"
        settings.write_text(f"{text}server_idle_timeout = 2\n")  # each test has a database of its own
        with (self._folder / f"pgbouncer-{self.port}.log").open("ab") as log:
            command = [*unprivileged(), str(self._program), str(settings)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        url = self.url(self._server.url())
        if not run(answers(url, self._server.password)):
            raise RuntimeError((self._folder / f"pgbouncer-{self.port}.log").read_text())

    def url(self, direct: str) -> str:
        """Of a database of the server, through the pooler."""
        return direct.replace(f":{self._server.port}/", f":{self.port}/") + "?sslmode=disable"

    def create_database(self) -> PooledUrl:
        """A new database."""
        url = PooledUrl(self._server.create_database())
        url.pooler = self.url(url)
        return url

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=10)
            self.process = None

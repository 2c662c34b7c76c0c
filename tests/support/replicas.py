"""Real streaming replicas of a real primary, in seconds: to delay, pause, kill and promote.

with replicated(2) as cluster:
    cluster.delay(0.5)                # each replica applies a commit so much later
    url = cluster.primary.create_database()
    cluster.settle()                  # every replica has replayed what the primary has
    cluster.primary.kill(); cluster.replicas[0].promote()
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from outgrow import endpoints
from tests.support.postgres import PostgresServer, programs, unprivileged

SETTINGS = """
wal_log_hints = on
hot_standby_feedback = on
max_wal_senders = 20
max_replication_slots = 20
wal_receiver_status_interval = 1
wal_retrieve_retry_interval = 100ms
"""


class Replica(PostgresServer):
    """A standby. It follows `upstream` from a base backup on, over a slot of its own."""

    def __init__(self, upstream: PostgresServer, name: str) -> None:
        super().__init__()
        self.name = name
        self.user, self.password = upstream.user, upstream.password
        self._upstream = upstream

    def initialise(self) -> None:
        """Copy the primary."""
        source = f"host=127.0.0.1 port={self._upstream.port} user={self.user} application_name={self.name}"
        subprocess.run(
            [
                *(*unprivileged(), str(programs() / "pg_basebackup"), "-d", source, "-D", str(self.data)),
                *("-R", "-X", "stream", "-c", "fast", "-C", "-S", f"slot_{self.name}", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "PGPASSWORD": self.password},
        )

    def set(self, name: str, value: str) -> None:
        """Change a setting at once."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"{name} = '{value}'\n")
        self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Become the primary; returns when it accepts writes."""
        self.execute("SELECT pg_promote(true, 30)")

    def follow(self, other: PostgresServer) -> None:
        """Replicate from another server from now on, and from no other when this returns.

        A replica that applies late notices late. Left alone it would take from an old primary that lives on
        what is not of the new one's history, and could never follow that.
        """
        self._upstream = other
        source = f"host=127.0.0.1 port={other.port} user={self.user} password={self.password}"
        self.set("primary_slot_name", "")
        self.set("primary_conninfo", f"{source} application_name={self.name}")
        elsewhere = f"SELECT 1 FROM pg_stat_wal_receiver WHERE sender_port <> {other.port}"
        deadline = time.monotonic() + 20
        while self.execute(elsewhere):
            assert time.monotonic() < deadline, f"{self.name} does not follow {other.port}"
            time.sleep(0.02)

    def replayed(self, position: str) -> bool:
        """Whether everything up to this position of the primary can be seen here."""
        found = self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn")
        return bool(found[0][0])


class Replicated:
    """A primary and its replicas."""

    def __init__(self, replicas: int) -> None:
        self.primary = PostgresServer()
        self.replicas = [Replica(self.primary, f"r{number}") for number in range(1, replicas + 1)]

    def start(self) -> None:
        """All of them from nothing."""
        self.primary.initialise()
        with (self.primary.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        self.primary.start()
        for replica in self.replicas:
            replica.initialise()
            replica.start()

    def stop(self) -> None:
        """End them all and remove their folders."""
        for server in (*self.replicas, self.primary):
            server.stop()

    def delay(self, seconds: float) -> None:
        """From now on every replica applies a commit so much later."""
        for replica in self.replicas:
            replica.set("recovery_min_apply_delay", f"{int(seconds * 1000)}ms")

    def settle(self, within_s: float = 30.0) -> None:
        """Wait until every replica has replayed what the primary has now."""
        (row,) = self.primary.execute("SELECT pg_current_wal_lsn()::text")
        deadline = time.monotonic() + within_s
        while not all(replica.replayed(row[0]) for replica in self.replicas):
            assert time.monotonic() < deadline, f"a replica has not come to {row[0]}"
            time.sleep(0.02)

    def nodes(self, url: str) -> tuple[endpoints.Node, ...]:
        """The nodes of an endpoints document for the database whose URL at the primary this is."""
        found = [endpoints.Node("primary", url)]
        for replica in self.replicas:
            parts = urlsplit(url)
            place = parts.netloc.rpartition(":")[0]
            at = urlunsplit(parts._replace(netloc=f"{place}:{replica.port}"))
            found.append(endpoints.Node(replica.name, at, "replica"))
        return tuple(found)


R = TypeVar("R", bound=Replicated)


@contextmanager
def replicated(replicas: int = 2, kind: type[R] = Replicated) -> Iterator[R]:  # type: ignore[assignment]
    """A primary and so many replicas, gone afterwards."""
    cluster = kind(replicas)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()

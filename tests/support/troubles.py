"""What happens to a replicated database while sessions are at work on it: each trouble, and its end.

Everything here blocks; whoever serves meanwhile calls it in a thread.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import asyncpg

from tests.support.postgres import PostgresServer
from tests.support.replicas import Replica, Replicated

RECEIVED = "SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), '0/0'), '0/0')"
WITHIN_S = 30.0
SETTLES_WITHIN_S = 8.0
DIFFERENCE = 0.4
_copies, _databases = itertools.count(1), itertools.count(1)


class Troubles:
    """Of one cluster, whose replicas apply so late: one by `delay_s`, the next by a little more."""

    def __init__(self, cluster: Replicated, delay_s: float = 0.0) -> None:
        self.cluster = cluster
        self.delay_s = delay_s
        self.failovers = 0
        self._out: list[PostgresServer] = []
        for number, replica in enumerate(cluster.replicas):
            self._delay(replica, number)

    def close(self) -> None:
        """End what was the primary once and was not brought back."""
        for server in self._out:
            server.kill()
            server.stop()

    def kill_replica(self, number: int = -1) -> None:
        """It dies at once, and is started again."""
        replica = self.cluster.replicas[number]
        replica.kill()
        replica.start()

    def pause(self, until: Callable[[], None]) -> None:
        """A replica receives, and applies nothing, as long as this takes."""
        replica = self.cluster.replicas[-1]
        replica.execute("SELECT pg_wal_replay_pause()")
        try:
            until()
        finally:
            replica.execute("SELECT pg_wal_replay_resume()")

    def hang(self, until: Callable[[], None]) -> None:
        """A replica keeps its connections, and answers nothing, as long as this takes."""
        replica = self.cluster.replicas[-1]
        stopped = replica.freeze()
        try:
            until()
        finally:
            replica.thaw(stopped)

    def fail_over(self, *, kill: bool = True, cut_off: Callable[[], None] | None = None) -> PostgresServer:
        """The primary dies, the most advanced replica is promoted, the others follow it. Returns the old one.

        With `cut_off` no replica receives what the primary acknowledges as long as that takes: it is lost.
        Without `kill` the old primary is left as it is.
        """
        if cut_off is not None:
            self._cut_off()
            cut_off()
        old, replicas = self.cluster.primary, self.cluster.replicas
        if kill:
            old.kill()
        new = max(replicas, key=lambda each: each.execute(RECEIVED)[0][0])
        new.promote()
        self.failovers += 1
        self._out.append(old)
        self.cluster.primary = new
        self.cluster.replicas = [each for each in replicas if each is not new]
        for each in self.cluster.replicas:
            each.follow(new)
        return old

    def settle(self) -> None:
        """Until every replica has what the primary has. One that cannot follow it any more is made anew."""
        try:
            self.cluster.settle(SETTLES_WITHIN_S)
        except AssertionError:
            (row,) = self.cluster.primary.execute("SELECT pg_current_wal_lsn()::text")
            behind = [each for each in self.cluster.replicas if not each.replayed(row[0])]
            for replica in behind:
                self.cluster.replicas.remove(replica)
                self._made_anew(replica)
            self.cluster.settle()

    def bring_back(self, server: PostgresServer) -> None:
        """What was the primary once becomes a replica of the present one, at the same address."""
        self._out.remove(server)
        self._made_anew(server)

    def _made_anew(self, server: PostgresServer) -> None:
        server.kill()
        server.stop()
        replica = Replica(self.cluster.primary, f"copy{next(_copies)}")
        replica.port = server.port
        replica.initialise()
        replica.start()
        self._delay(replica, len(self.cluster.replicas))
        self.cluster.replicas.append(replica)

    def _cut_off(self) -> None:
        for replica in self.cluster.replicas:
            replica.set("primary_conninfo", "")
        self._wait(lambda: not self.cluster.primary.execute("SELECT 1 FROM pg_stat_replication"))

    def confirmed_by(self, standbys: str) -> None:
        """Commits at the present primary wait for these, as synchronous_standby_names has it."""
        primary = self.cluster.primary
        primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
        primary.execute("SELECT pg_reload_conf()")
        self._wait(lambda: primary.execute("SHOW synchronous_standby_names")[0][0] == standbys)

    def create_database(self) -> str:
        """An empty one on every server, once they have replayed it; returns its name."""
        name = f"registers_{next(_databases)}"
        self.cluster.primary.execute(f"CREATE DATABASE {name}")
        return name

    def _delay(self, replica: Replica, number: int) -> None:
        seconds = self.delay_s * (1 + DIFFERENCE * number)
        replica.set("recovery_min_apply_delay", f"{int(seconds * 1000)}ms")

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                if condition():
                    return
            except (OSError, asyncpg.PostgresError):
                pass
            assert time.monotonic() < deadline, "a replica is not as it should be"
            time.sleep(0.02)

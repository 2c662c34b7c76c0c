"""The archive of the write-ahead log where the database does not simply go on: another line begins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outgrow import endpoints
from outgrow.backups import history
from outgrow.endpoints import Secrets
from outgrow.engines.postgres.postgres import ARCHIVE
from tests.support.fleets import wait_until
from tests.support.postgres import PostgresServer, programs
from tests.support.replicas import Replicated, replicated

BEHIND = f"""
SELECT active AND restart_lsn >= pg_current_wal_flush_lsn() FROM pg_replication_slots
WHERE slot_name = '{ARCHIVE}'
"""


@contextmanager
def archiving(server: PostgresServer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The archive of this server, while the block lasts."""
    secrets, passwords = folder.with_name("secrets.json"), folder.with_name("passwords")
    endpoints.write(secrets, Secrets(application="00" * 32, passwords={"replication": server.password}))
    passwords.write_text(f"*:*:*:{server.user}:{server.password}\n")
    passwords.chmod(0o600)
    url = f"postgresql://{server.user}@127.0.0.1:{server.port}/postgres?application_name={ARCHIVE}"
    process = subprocess.Popen(
        [sys.executable, "-m", "outgrow.backups.archive", str(programs()), url, str(folder)],
        env={**os.environ, "OUTGROW_SECRETS": str(secrets), "PGPASSFILE": str(passwords)},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def caught_up(server: PostgresServer) -> bool:
    return any(row[0] for row in server.execute(BEHIND))


def write(server: PostgresServer, times: int = 1) -> None:
    for _ in range(times):
        server.execute("CREATE TABLE IF NOT EXISTS filled (n int)")
        server.execute("INSERT INTO filled SELECT generate_series(1, 1000)")
        server.execute("SELECT pg_switch_wal()")


def test_a_failover_that_left_writes_behind(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    with replicated(1, Replicated) as cluster:
        primary, [replica] = cluster.primary, cluster.replicas
        with archiving(primary, folder):
            wait_until(lambda: caught_up(primary), "the archive")
            cluster.settle()
            replica.kill()
            write(primary, 3)
            wait_until(lambda: caught_up(primary), "writes that the replica does not have, in the archive")
            primary.kill()
        replica.start()
        replica.promote()
        with archiving(replica, folder) as process:
            assert process.wait(30) != 0, "it cannot continue the old line"
        [old, new] = history.histories(folder)
        with archiving(replica, folder):
            write(replica)
            wait_until(lambda: caught_up(replica), "the archive of the new line")
        assert any(path.name.startswith("00000002") for path in new.wal.iterdir())
        assert old.about.system == new.about.system and list(old.wal.iterdir())


def test_an_archive_that_was_away_for_too_long(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    server = PostgresServer()
    try:
        server.initialise()
        server.start()
        server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        server.execute("SELECT pg_reload_conf()")
        with archiving(server, folder):
            write(server)
            wait_until(lambda: caught_up(server), "the archive")
        write(server, 6)
        server.execute("CHECKPOINT")
        lost = f"SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{ARCHIVE}'"
        assert server.execute(lost)[0][0]
        with archiving(server, folder):
            wait_until(lambda: caught_up(server), "the archive again")
        assert len(history.histories(folder)) == 2, "what lies before the gap is another line"
    finally:
        server.stop()

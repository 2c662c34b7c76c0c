"""Reads the write-ahead log into the archive, as it is written. Run by the fleet:

    python -m outgrow.backups.archive PROGRAMS URL FOLDER

PostgreSQL's own pg_receivewal does it. This finds the line of writes that the database continues, and begins
another where it does not continue any: after a gap, or when a failover has left writes behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from outgrow import endpoints
from outgrow.backups import history
from outgrow.backups.history import History
from outgrow.engines.postgres.archive import gap, system
from outgrow.engines.postgres.postgres import ARCHIVE
from outgrow.errors import FleetError

ANOTHER_LINE = ("not in this server's history", "has already been removed")
"""What a primary says to an archive that has writes which it does not know, or that lacks older ones."""


def line_of(url: str, folder: Path) -> History:
    """The one to continue. Raises FleetError when the database does not answer."""
    password = endpoints.read_secrets(os.environ["OUTGROW_SECRETS"]).passwords["replication"]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = asyncio.run(system(url, password))
    if asyncio.run(gap(url, password)):
        sys.stderr.write("a part of the write-ahead log is lost to the archive: another line begins\n")
        return history.begin(folder, number)
    return history.current(folder, number)


def main(programs: str, url: str, folder: str) -> int:
    """Until it is ended, or pg_receivewal ends: whoever runs this tries again."""
    line = line_of(url, Path(folder))
    program = [f"{programs}/pg_receivewal", f"--dbname={url}", f"--slot={ARCHIVE}", "--no-password"]
    subprocess.run([*program, "--create-slot", "--if-not-exists"], check=True)
    # Synchronous: what it says it has is on the disk.
    reading = subprocess.Popen(
        [*program, f"--directory={line.wal}", "--synchronous", "--status-interval=1", "--no-loop"],
        stderr=subprocess.PIPE,
        text=True,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: reading.send_signal(signal.SIGINT))
    assert reading.stderr is not None
    for said in reading.stderr:
        sys.stderr.write(said)
        if any(each in said for each in ANOTHER_LINE):
            sys.stderr.write("the archive cannot go on there: another line of writes begins\n")
            history.begin(line.folder.parent, line.about.system)
    return reading.wait()


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except (FleetError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))

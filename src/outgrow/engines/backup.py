"""Backups of the fleet's PostgreSQL, with PostgreSQL's own programs: who makes them.

    wal-archive   pg_receivewal   every write is in the archive within moments, wherever the primary is
    backups       keeps the copies of the whole, by pg_basebackup, and what is needed to restore from them

Both read the database over its network address as the role that replicas have, so a failover changes
nothing for them. The password is in a file of mode 0600 that libpq reads.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from outgrow import endpoints
from outgrow.engines.base import Placement
from outgrow.engines.postgres.postgres import ARCHIVE, REPLICATION, find
from outgrow.errors import EngineMissing, Misuse
from outgrow.topology.model import Topology
from outgrow.workload import File, Restart, Stop, Workload

ARCHIVER = "wal-archive"
KEEPER = "backups"
INSTALL = "pip install 'outgrow[s3]'"
NEEDED = ("pg_receivewal", "pg_basebackup", "pg_archivecleanup")


class Backup:
    """`primary_url` is the primary's, for any role; `after` what must run first. Raises EngineMissing."""

    def __init__(self, topology: Topology, placement: Placement, primary_url: str, after: str) -> None:
        self._place = placement
        self._after = after
        self.folder = folder(topology, placement.application)
        self.programs = find(topology.database.programs).programs
        missing = [name for name in NEEDED if not (self.programs / name).exists()]
        if missing:
            raise EngineMissing(f"{', '.join(missing)} in {self.programs}", install="the whole of PostgreSQL")
        if topology.backup.mirror is not None and importlib.util.find_spec("obstore") is None:
            raise EngineMissing("obstore, which a mirror of backups needs,", install=INSTALL)
        self.url = as_role(primary_url, REPLICATION, "postgres")

    @property
    def passwords(self) -> Path:
        """What libpq reads: PGPASSFILE."""
        return self._place.data / "backup-passwords"

    def workloads(self) -> tuple[Workload, ...]:
        """The two. The placement's secrets must have been made."""
        password = endpoints.read_secrets(self._place.operator_secrets).passwords["replication"]
        variables = {
            "OUTGROW_SECRETS": str(self._place.operator_secrets),
            "OUTGROW_DIRECTORY": str(self._place.application),
            "PGPASSFILE": str(self.passwords),
        }
        file = File(str(self.passwords), f"*:*:*:{REPLICATION}:{password}\n", 0o600)
        places = (str(self.programs), self.url, str(self.folder))
        return tuple(
            Workload(
                name=name,
                argv=(sys.executable, "-m", f"outgrow.backups.{module}", *places),
                environment=variables,
                files=(file,),
                directory=str(self._place.application),
                after=(self._after,),
                # The folder may be a disk that comes back after a while: it is tried for ever.
                restart=Restart(first_delay_s=1.0, limit=1_000_000),
                stop=Stop("INT", grace_s=10),
                unprivileged=True,
            )
            for name, module in ((ARCHIVER, "archive"), (KEEPER, "keeper"))
        )


def folder(topology: Topology, application: Path) -> Path:
    """Where the backups of this application are. Raises Misuse when outgrow.toml names no folder."""
    directory = topology.backup.directory
    if directory is None:
        raise Misuse(
            "outgrow.toml says nowhere where backups are",
            hint='write directory = "/another/disk" under [backup], and start the fleet again',
        )
    found = (application / directory).resolve()
    if found.is_relative_to(application.resolve()):
        raise Misuse(
            f"{found} lies with the application: a deploy would copy it, and it would be lost with the rest",
            hint="name a folder outside of it, best on another disk",
        )
    return found / topology.application.name


def as_role(url: str, role: str, database: str) -> str:
    """The same server for another role, known to it as the archive."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    query = "&".join(filter(None, (parts.query, f"application_name={ARCHIVE}")))
    return urlunsplit(parts._replace(netloc=f"{role}@{hosts}", path=f"/{database}", query=query))

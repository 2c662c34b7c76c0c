"""PgBouncer, on the database's host: many connections of processes share a few of PostgreSQL.

    processes ── servers x workers x pool ──► pgbouncer ── at most 100 ──► postgres

A connection is lent for one transaction. Both sides prove with SCRAM that they know the password, and
PgBouncer does not: it has what PostgreSQL has, and passes the proof of its clients on.
"""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path

from outgrow import endpoints
from outgrow.engines.base import Placement
from outgrow.engines.postgres.postgres import CONNECTIONS, Postgres
from outgrow.engines.postgres.scram import verifier
from outgrow.errors import EngineMissing
from outgrow.topology.model import Topology
from outgrow.workload import Address, File, Probe, Stop, Workload

NAME = "pgbouncer"
PORT = 6432
PLACES = ("/usr/sbin", "/usr/bin", "/usr/local/bin")
"""Debian's, and that of `make install`: a service's PATH may lack them."""

INSTALL = 'apt-get install pgbouncer; or write pooler = "off" under [database]'
READY = "outgrow.engines.pgbouncer.ready"

CLIENTS_MAX = 10_000
"""Connections of processes, at most. Each needs a few kilobytes and a descriptor."""

BESIDES = CONNECTIONS + 100
"""Descriptors for everything else."""


class PgBouncer:
    """One pooler before the fleet's own PostgreSQL. Raises EngineMissing when a program is missing."""

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._program = find()
        self._server = Postgres(topology, placement)
        self._topology = topology
        self._place = placement
        self.last = NAME

    @property
    def url(self) -> str:
        """For the application. It holds no password; on loopback nothing is encrypted."""
        return url(self._server.role, self._place.host)

    def workloads(self) -> tuple[Workload, ...]:
        """The pooler alone. The placement's secrets must have been made."""
        settings, users = self._place.data / f"{NAME}.ini", self._place.data / f"{NAME}-users.txt"
        password = endpoints.read_secrets(self._place.secrets).passwords["*"]
        role = self._server.role
        text = configuration(
            Address(self._place.host, PORT),
            self._server.address,
            role,
            users,
            certificate=self._server.certificate,
            wait_s=self._topology.database.checkout_timeout,
        )
        return (
            Workload(
                name=NAME,
                tier="pooler",
                argv=(*_descriptors(), str(self._program), str(settings)),
                environment={"OUTGROW_SECRETS": str(self._place.secrets)},
                files=(
                    File(str(settings), text, 0o600),
                    File(str(users), f'"{role}" "{verifier(role, password)}"\n', 0o600),
                ),
                host="postgres",
                after=(self._server.last,),
                # An open port is not enough: what stands behind it has to answer, too.
                readiness=Probe(
                    "command",
                    Address(self._place.host, PORT),
                    argv=(sys.executable, "-m", READY, self.url),
                ),
                # INT lets the transactions end.
                stop=Stop("INT", grace_s=30),
                unprivileged=True,
            ),
        )


def url(role: str, host: str) -> str:
    """Where it is."""
    return f"postgresql://{role}@{host}:{PORT}/{role}?sslmode=disable"


def configuration(
    address: Address, server: Address, role: str, users: Path, *, certificate: Path | None, wait_s: float
) -> str:
    """pgbouncer.ini, for one role and the database of the same name."""
    settings = {
        "listen_addr": address.host,
        "listen_port": address.port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": users,
        "pool_mode": "transaction",
        "default_pool_size": CONNECTIONS,
        "max_db_connections": CONNECTIONS,
        "max_client_conn": clients(),
        "query_wait_timeout": max(1, round(wait_s)),
        # While PostgreSQL restarts: how soon it is tried again, and how long an attempt may take.
        "server_login_retry": 0.2,
        "server_connect_timeout": 3,
        "server_tls_sslmode": "verify-full" if certificate else "disable",
        **({"server_tls_ca_file": certificate} if certificate else {}),
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }
    lines = [f"{key} = {value}" for key, value in settings.items()]
    return "\n".join(
        [
            "; Written by Outgrow at every start: edit outgrow.toml instead.",
            "[databases]",
            f"{role} = host={server.host} port={server.port} dbname={role}",
            "",
            "[pgbouncer]",
            *lines,
            "",
        ]
    )


def clients() -> int:
    """How many connections processes may have, as this machine's limits allow it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CLIENTS_MAX if hard == resource.RLIM_INFINITY else min(CLIENTS_MAX, hard - BESIDES)


def _descriptors() -> tuple[str, ...]:
    """PgBouncer takes the usual limit of 1024 as it is, and refuses clients beyond it."""
    return ("prlimit", f"--nofile={clients() + BESIDES}", "--")


def find() -> Path:
    """The program to run: PATH before Debian's places. Raises EngineMissing."""
    for place in (None, *PLACES):
        found = shutil.which(NAME, path=place)
        if found is not None:
            return Path(found)
    raise EngineMissing("PgBouncer", install=INSTALL)

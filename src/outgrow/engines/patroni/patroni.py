"""PostgreSQL with replicas: each node a host with Patroni, which asks etcd who the primary is.

    etcd ─► postgres-1 ─► postgres-2 ... ─► postgres-settings (job)
              └ Patroni ─► PostgreSQL           └ the roles, the database

One of the hosts has the lease and is the primary; the others stream from it. Without the lease a node does
not accept writes. A host is a namespace (host.py): where Patroni ends, PostgreSQL ends with it, so no server
is ever left that thinks itself the primary and that nobody watches.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from outgrow import endpoints
from outgrow.endpoints import CHANGES, Node
from outgrow.engines.base import Placement
from outgrow.engines.etcd.etcd import CLUSTER, Etcd
from outgrow.engines.postgres.postgres import (
    ADMIN,
    ARCHIVE,
    PORT,
    REPLICATION,
    SETUP,
    find,
    parameters,
    room_for,
)
from outgrow.errors import EngineMissing
from outgrow.topology.model import Topology
from outgrow.workload import Address, File, Probe, Restart, Stop, Workload

PREFIX = "postgres-"
FIRST = 231
"""Number of the first node's emulated host."""

INSTALL = "pip install 'outgrow[fleet]'"
RUN = "outgrow.engines.patroni.run"
REST = 8008
NAMESPACE = "/outgrow/"
HOST = Path(__file__).parents[1] / "host.py"
START_WITHIN_S = 3600.0
"""A new replica copies the whole database first."""

TTL_S, LOOP_S, RETRY_S = 20, 1, 3
"""The lease, how often Patroni looks, and for how long it tries again. Patroni takes no shorter lease."""

LAG_MAX = 1 << 20
"""Bytes. Who lacks more than this of the log does not take over by itself."""

SLOT_MAX = "2GB"
"""So much of the log is kept for a replica that is away; after that it copies the whole database anew."""


class Patroni:
    """The primary and its replicas. Raises EngineMissing when a program is missing.

    `source` is a primary elsewhere that all nodes follow at first: then none of them accepts writes.
    """

    def __init__(self, topology: Topology, placement: Placement, *, source: Address | None = None) -> None:
        require_patroni()
        self._programs = find(topology.database.programs).programs
        self._topology = topology
        self._name = topology.application.name
        self._place = placement
        self._source = source
        self._etcd = Etcd(topology, placement)
        self.last = "postgres-settings"

    @property
    def hosts(self) -> dict[str, str]:
        """Name -> address of each node. The first of them is the primary of a new cluster."""
        numbers = range(self._topology.database.copies + 1)
        return {f"{PREFIX}{n + 1}": self._place.neighbour(FIRST + n) for n in numbers}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """For the endpoints; who the primary is now, the nodes say themselves."""
        return tuple(
            Node(name, f"postgresql://{self._name}@{host}:{PORT}/{self._name}", _role(number))
            for number, (name, host) in enumerate(self.hosts.items())
        )

    @property
    def role(self) -> str:
        """The application's."""
        return self._name

    @property
    def admin_url(self) -> str:
        """The superuser at the primary, whichever node that is, in the application's database."""
        return self._url(ADMIN, self._name)

    @property
    def owner_url(self) -> str:
        """For migrations, at the primary."""
        return self._url(f"{self._name}_owner", self._name)

    @property
    def changes_url(self) -> str | None:
        """For whoever reads what has changed, at the primary, where that is asked for."""
        return (
            self._url(f"{self._name}{CHANGES}", self._name) if self._topology.cache.follow_changes else None
        )

    def node_url(self, name: str) -> str:
        """The superuser at one node, in the application's database."""
        return f"postgresql://{ADMIN}@{self.hosts[name]}:{PORT}/{self._name}"

    @property
    def replication_url(self) -> str:
        """For who follows the primary, whichever node that is."""
        return self._url(REPLICATION, "")

    def _url(self, role: str, database: str) -> str:
        hosts = ",".join(f"{host}:{PORT}" for host in self.hosts.values())
        return f"postgresql://{role}@{hosts}/{database}?target_session_attrs=primary"

    @property
    def folder(self) -> Path:
        """All that the nodes and etcd keep."""
        return self._data

    def workloads(self) -> tuple[Workload, ...]:
        """etcd, the nodes, the roles. The placement's secrets must have been made."""
        return (*self._etcd.workloads(), self._settings(), *self.servers(), self._provision())

    def servers(self) -> tuple[Workload, ...]:
        """The nodes alone. Where there is no data yet, or only at one of them, the others wait for that one:
        they would make a new cluster, with a database of its own. Later none waits for another.
        """
        having = [name for name in self.hosts if self.data(name).exists()]
        first = (having or list(self.hosts))[0] if len(having) < 2 else ""
        return tuple(
            self._serve(name, host, (first,) if first and name != first else ("postgres-lease",))
            for name, host in self.hosts.items()
        )

    @property
    def _data(self) -> Path:
        return self._place.data / CLUSTER

    def data(self, name: str) -> Path:
        """The data directory of a node."""
        return self._data / name

    def _settings(self) -> Workload:
        """What holds for all nodes is in etcd; outgrow.toml may say something else by now."""
        return Workload(
            name="postgres-lease",
            kind="job",
            argv=(sys.executable, "-m", "outgrow.engines.patroni.settings", str(self._file("cluster"))),
            files=(File(str(self._file("cluster")), json.dumps(self._cluster(), indent=2), 0o600),),
            after=self._etcd.names,
        )

    def _file(self, name: str) -> Path:
        return self._data / f"{name}.json"

    def _cluster(self) -> dict[str, Any]:
        return {"etcd": self.etcd(), "scope": self._name, "config": self.dynamic()}

    def etcd(self) -> dict[str, Any]:
        """How to reach etcd, as Patroni has it."""
        certificate = str(self._etcd.certificate)
        return {
            "hosts": [str(each) for each in self._etcd.clients],
            "protocol": "https",
            "cacert": certificate,
            "cert": certificate,
            "key": str(self._etcd.key),
        }

    def dynamic(self) -> dict[str, Any]:
        """Patroni's dynamic configuration: what holds for all nodes."""
        settings = {
            "ttl": TTL_S,
            "loop_wait": LOOP_S,
            "retry_timeout": RETRY_S,
            "maximum_lag_on_failover": LAG_MAX,
            # A server that has crashed is not waited for: another takes over.
            "primary_start_timeout": 0,
            # etcd is lost: the primary goes on while all nodes agree that it is the primary.
            "failsafe_mode": True,
            "check_timeline": True,
            **self._synchronous(),
            "postgresql": {
                "use_pg_rewind": True,
                "use_slots": True,
                "parameters": self._shared_parameters(),
            },
        }
        if self._topology.backup.directory is not None:
            settings["slots"] = {
                ARCHIVE: {"type": "physical"}
            }  # at every node, so that a failover leaves no gap
        if self._topology.cache.follow_changes:
            # The application makes and reads it: Patroni drops every other slot that it did not make.
            settings["ignore_slots"] = [{"name": f"{self._name}{CHANGES}", "type": "logical"}]
        if self._source is not None:
            settings["standby_cluster"] = {"host": self._source.host, "port": self._source.port}
        return settings

    def _synchronous(self) -> dict[str, Any]:
        """docs/replication.md has the table."""
        database = self._topology.database
        mode: dict[str, bool | str] = {"async": False, "semi-sync": "quorum", "sync": True}
        return {
            "synchronous_mode": mode[database.replication],
            "synchronous_mode_strict": database.sync_strict,
            "synchronous_node_count": database.copies if database.replication == "sync" else 1,
        }

    def _shared_parameters(self) -> dict[str, Any]:
        timeout = f"{round(self._topology.database.sync_timeout * 1000)}ms"
        return {
            **parameters(room_for(self._topology)),
            "hot_standby": "on",
            "hot_standby_feedback": "on",
            "max_slot_wal_keep_size": SLOT_MAX,
            # For who follows without a slot: a copy that is made when the replicas are to go.
            "wal_keep_size": "256MB",
            # A replica that does not answer for so long is given up: no commit waits for it any more.
            "wal_sender_timeout": timeout,
            "wal_receiver_timeout": timeout,
            "synchronous_commit": "on",
        }

    def _serve(self, name: str, host: str, after: tuple[str, ...]) -> Workload:
        settings = self._file(name)
        return Workload(
            name=name,
            tier="database",
            argv=(
                *(sys.executable, "-I", "-S", str(HOST)),
                *(sys.executable, "-m", RUN, str(settings)),
            ),
            files=(File(str(settings), json.dumps(self._node(name, host), indent=2), 0o600),),
            after=after,
            readiness=Probe("http", Address(host, REST), "/readiness", timeout_s=START_WITHIN_S),
            restart=Restart(),
            stop=Stop("TERM", grace_s=60),
            serves=Address(host, PORT),
        )

    def _node(self, name: str, host: str) -> dict[str, Any]:
        """patroni.yml; JSON is YAML, too."""
        passwords = endpoints.read_secrets(self._place.operator_secrets).passwords
        return {
            "scope": self._name,
            "namespace": NAMESPACE,
            "name": name,
            "log": {"level": "INFO", "deduplicate_heartbeat_logs": True},
            "restapi": {
                "listen": f"{host}:{REST}",
                "connect_address": f"{host}:{REST}",
                # To look is free, to change something is not.
                "authentication": {"username": "outgrow", "password": passwords["patroni"]},
            },
            "etcd3": self.etcd(),
            "bootstrap": {
                "dcs": self.dynamic(),
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": self._postgresql(name, host, passwords),
            "watchdog": {"mode": "off"},
        }

    def _postgresql(self, name: str, host: str, passwords: dict[str, str]) -> dict[str, Any]:
        return {
            "listen": f"{host}:{PORT}",
            "connect_address": f"{host}:{PORT}",
            "data_dir": str(self.data(name)),
            "bin_dir": str(self._programs),
            "pgpass": str(self._data / f"{name}.pgpass"),
            "parameters": {"unix_socket_directories": ""},
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": True,
            "basebackup": [{"checkpoint": "fast"}],
            "authentication": {
                "superuser": {"username": ADMIN, "password": passwords["admin"]},
                "replication": {"username": REPLICATION, "password": passwords["replication"]},
            },
            "pg_hba": [
                "host all all 127.0.0.0/8 scram-sha-256",
                f"host replication {REPLICATION} 127.0.0.0/8 scram-sha-256",
            ],
        }

    def _provision(self) -> Workload:
        return Workload(
            name=self.last,
            kind="job",
            argv=(sys.executable, "-m", SETUP, "provision", self._url(ADMIN, "postgres"), self._name),
            environment={"OUTGROW_SECRETS": str(self._place.operator_secrets)},
            after=tuple(self.hosts),
        )


def _role(number: int) -> Any:
    return "primary" if number == 0 else "replica"


def slot_of(name: str) -> str:
    """The slot in which the primary keeps the log for this node: what Patroni calls it."""
    return name.replace("-", "_")


def require_patroni() -> None:
    """Raises EngineMissing when its package, or what it needs for etcd and PostgreSQL, is missing."""
    for module in ("patroni", "psycopg", "urllib3", "psutil"):
        if importlib.util.find_spec(module) is None:
            raise EngineMissing(f"Patroni, which failover needs (no module {module}),", install=INSTALL)

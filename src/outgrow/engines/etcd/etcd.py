"""etcd, three nodes that agree: who the primary is, they keep, and no minority can say otherwise.

    etcd-tls      job       one key and its certificate, for these three addresses
    etcd-1 ... 3  service   each on an own loopback address; whoever lacks the key cannot speak to them

Who is a client and who is a peer proves it with the same certificate (TLS, both ways). What the nodes say of
their health is on a port of its own, in the open: it tells nothing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from outgrow.engines.base import Placement
from outgrow.errors import EngineMissing
from outgrow.topology.model import Topology
from outgrow.workload import Address, Probe, Restart, Stop, Workload

NAME = "etcd"
FIRST = 241
"""Number of the first node's emulated host."""

NODES = 3
CLIENTS, PEERS, HEALTH = 2379, 2380, 2381
PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
"""Debian's, and that of `make install`: a service's PATH may lack them."""

INSTALL = "apt-get install etcd-server"
CLUSTER = "replicated"
"""The folder of a database with replicas, and of all that belongs to it."""

TLS = "outgrow.engines.etcd.tls"
RUN = "outgrow.engines.etcd.run"


class Etcd:
    """The three nodes. Raises EngineMissing when the program is missing."""

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._program = find()
        self._place = placement
        # Beside the nodes that it elects among: neither means anything without the other.
        self._data = placement.data / CLUSTER / NAME
        self.names = tuple(f"{NAME}-{number}" for number in range(1, NODES + 1))
        self.hosts = tuple(placement.neighbour(FIRST + number) for number in range(NODES))

    @property
    def certificate(self) -> Path:
        """What every client and every node shows, and whom each of them trusts."""
        return self._data / "tls" / "etcd.crt"

    @property
    def key(self) -> Path:
        """The certificate's key."""
        return self._data / "tls" / "etcd.key"

    @property
    def clients(self) -> tuple[Address, ...]:
        """Where clients ask."""
        return tuple(Address(host, CLIENTS) for host in self.hosts)

    def workloads(self) -> tuple[Workload, ...]:
        """The certificate, then the nodes side by side: none is ready before most of them are there."""
        return (self._certify(), *(self._serve(*each) for each in zip(self.names, self.hosts, strict=True)))

    def _certify(self) -> Workload:
        argv = (sys.executable, "-m", TLS, str(self.certificate.parent), *self.hosts)
        return Workload(name="etcd-tls", kind="job", argv=argv)

    def _serve(self, name: str, host: str) -> Workload:
        options = (f"--{option}={value}" for option, value in self._options(name, host))
        return Workload(
            name=name,
            tier="consensus",
            argv=(sys.executable, "-m", RUN, str(self._program), *options),
            after=("etcd-tls",),
            readiness=Probe("http", Address(host, HEALTH), "/health", timeout_s=60),
            restart=Restart(),
            # The last to go waits in vain for somebody to lead after it. Killed, it loses nothing.
            stop=Stop("TERM", grace_s=2),
            unprivileged=True,
            serves=Address(host, CLIENTS),
        )

    def _options(self, name: str, host: str) -> list[tuple[str, str | Path]]:
        peers = ",".join(
            f"{other}=https://{address}:{PEERS}"
            for other, address in zip(self.names, self.hosts, strict=True)
        )
        secured: list[tuple[str, str | Path]] = []
        for side in ("", "peer-"):
            secured += [
                (f"{side}client-cert-auth", "true"),
                (f"{side}trusted-ca-file", self.certificate),
                (f"{side}cert-file", self.certificate),
                (f"{side}key-file", self.key),
            ]
        return [
            ("name", name),
            ("data-dir", self._data / name),
            ("listen-client-urls", f"https://{host}:{CLIENTS}"),
            ("advertise-client-urls", f"https://{host}:{CLIENTS}"),
            ("listen-peer-urls", f"https://{host}:{PEERS}"),
            ("initial-advertise-peer-urls", f"https://{host}:{PEERS}"),
            ("listen-metrics-urls", f"http://{host}:{HEALTH}"),
            ("initial-cluster", peers),
            ("initial-cluster-token", NAME),
            # Patroni writes a few bytes a second: an hour of them is plenty.
            ("auto-compaction-retention", "1h"),
            ("log-level", "warn"),
            ("logger", "zap"),
            *secured,
        ]


def find() -> Path:
    """The program to run: PATH before Debian's places. Raises EngineMissing."""
    for place in (None, *PLACES):
        found = shutil.which(NAME, path=place)
        if found is not None:
            return Path(found)
    raise EngineMissing("etcd, which failover needs,", install=INSTALL)

"""Envoy: the load balancer, told everything by files that it reads again when they are replaced.

    clients ─► balancer-1  (the application's address)   ─┐
               balancer-2  (its standby, copies = 2)     ─┴─► servers

Each has a folder of its own, .outgrow/balancer/NAME:

    bootstrap.json   read once: its admin interface (a Unix socket of mode 0600), where the rest is
    lds.json         the listener: TLS, HTTP, limits          listener.py
    sds.json         its certificate                          listener.py
    certificate.json where that comes from                    certificate.py, tls.py
    routes.json      which request goes to which pool         routes.py
    pools.json       the pools: choice, health, breakers      clusters.py
    eds-POOL.json    the servers of a pool

A process of ours (run.py) starts it, ends it gently, and writes what has an order or needs figures:
cds.json and rds.json (changes.py), weighted-POOL.json (latency.py).
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from outgrow.engines.balancer import Server
from outgrow.engines.base import Placement
from outgrow.engines.envoy import certificate
from outgrow.engines.envoy import clusters as envoy_clusters
from outgrow.engines.envoy import listener as envoy_listener
from outgrow.engines.envoy import routes as envoy_routes
from outgrow.engines.envoy.certificate import CERTIFICATE, KEY, Wanted
from outgrow.engines.envoy.changes import CLUSTERS, POOLS, WANTED
from outgrow.engines.envoy.clusters import ENDPOINTS, Message, from_file, resources
from outgrow.engines.envoy.listener import SECRETS
from outgrow.errors import EngineMissing, Misuse
from outgrow.topology.model import Topology
from outgrow.workload import Address, File, Probe, Stop, Workload

RUN = "outgrow.engines.envoy.run"
TLS = "outgrow.engines.envoy.tls"
ADMIN_MODULE = "outgrow.engines.envoy.admin"
CERTIFY = "balancer-certificate"
ADMIN = "admin.sock"
DRAIN_S = 60
"""How long Envoy lets connections of a listener that has changed live on."""

STOP_GRACE_S = 15.0
"""More than run.py takes to end gently."""

UNPRIVILEGED_PORT_MIN = 1024


class Envoy:
    """One Envoy, or two of the same configuration. Raises EngineMissing when there is none to run.

    The first listens on the application's address, its standby on the same port of the placement's host,
    from which both connect to the servers.
    """

    def __init__(self, topology: Topology, placement: Placement, servers: Sequence[Server]) -> None:
        self._program = find()
        self._settings = topology.balancer
        self._servers = tuple(servers)
        self._place = placement
        port = topology.application.port
        addresses = [Address(topology.application.host, port), Address(placement.host, port)]
        self._nodes = {
            f"balancer-{number}": address
            for number, address in enumerate(addresses[: topology.balancer.copies], 1)
        }

    @property
    def environment(self) -> dict[str, str]:
        """For the servers: which host they may believe what it says of the client (runtime/serve.py)."""
        name = "OUTGROW_PROXIES" if self._settings.layer == 7 else "OUTGROW_RELAYS"
        return {name: self._place.host}

    @property
    def addresses(self) -> dict[str, Address]:
        """Where each one listens, by the name of its workload."""
        return dict(self._nodes)

    def workloads(self) -> tuple[Workload, ...]:
        """One service each. It is ready when it listens: by then it has asked every server once.

        With a certificate of our own, a job before them makes it.
        """
        first = (self._certify(),) if self._makes_certificate else ()
        return (*first, *(self._workload(name, address) for name, address in self._nodes.items()))

    def files(self) -> tuple[File, ...]:
        """What may change while it runs: replacing these files changes it within a third of a second, and
        breaks no connection."""
        return tuple(file for name in self._nodes for file in self._dynamic(name))

    @property
    def _makes_certificate(self) -> bool:
        return self._settings.tls.enabled and self._settings.tls.certificate is None

    @property
    def certificates(self) -> Path:
        """Where what we make is: `ca.crt` is what clients have to trust."""
        return self._place.data / "balancer"

    def _certify(self) -> Workload:
        argv = (sys.executable, "-m", TLS, str(self.certificates), *self._hosts())
        return Workload(name=CERTIFY, kind="job", argv=argv)

    def _hosts(self) -> list[str]:
        addresses = [_reachable(_numeric(address)).host for address in self._nodes.values()]
        routed = [route.host for route in self._settings.routes if route.host is not None]
        return list(dict.fromkeys(["localhost", *addresses, *routed]))

    def _certificate(self) -> Wanted:
        tls = self._settings.tls
        if tls.certificate is None or tls.key is None:
            made = self.certificates
            return Wanted(str(made / CERTIFICATE), str(made / KEY), self._hosts())
        given = self._place.application
        return Wanted(str(given / tls.certificate), str(given / tls.key), [])

    def _workload(self, name: str, address: Address) -> Workload:
        folder = self._folder(name)
        return Workload(
            name=name,
            tier="balancer",
            argv=(sys.executable, "-m", RUN, str(self._program)),
            directory=str(folder),
            files=(_file(folder / "bootstrap.json", _bootstrap(name)), *self._dynamic(name)),
            claims=(address,),
            after=(CERTIFY,) if self._makes_certificate else (),
            readiness=Probe(
                "command", address, argv=(sys.executable, "-m", ADMIN_MODULE, str(folder / ADMIN))
            ),
            stop=Stop("TERM", grace_s=STOP_GRACE_S),
            # A user namespace may not listen on the ports below.
            unprivileged=address.port >= UNPRIVILEGED_PORT_MIN,
        )

    def _folder(self, name: str) -> Path:
        return self._place.state / "balancer" / name

    def _dynamic(self, name: str) -> Iterable[File]:
        """New servers before the pools that need them."""
        folder, settings = self._folder(name), self._settings
        for pool, assignment in envoy_clusters.endpoints(settings, self._servers).items():
            path = folder / f"{ENDPOINTS}{pool}.json"
            yield _resources(path, "config.endpoint.v3.ClusterLoadAssignment", [assignment])
        pools = envoy_clusters.clusters(settings, self._place.host)
        yield _resources(folder / POOLS, "config.cluster.v3.Cluster", pools)
        table = envoy_routes.routes(settings)
        yield _resources(folder / WANTED, "config.route.v3.RouteConfiguration", [table])
        if settings.tls.enabled:
            yield _file(folder / certificate.WANTED, self._certificate()._asdict())
            secrets = [envoy_listener.secret(folder)]
            yield _resources(folder / SECRETS, "extensions.transport_sockets.tls.v3.Secret", secrets)
        listener = envoy_listener.listener(settings, _numeric(self._nodes[name]))
        yield _resources(folder / "lds.json", "config.listener.v3.Listener", [listener])


def _bootstrap(name: str) -> Message:
    return {
        "node": {"id": name, "cluster": "outgrow"},
        "admin": {"address": {"pipe": {"path": ADMIN, "mode": 0o600}}},
        "static_resources": {"clusters": [envoy_clusters.latency()]},
        "dynamic_resources": {"cds_config": from_file(CLUSTERS), "lds_config": from_file("lds.json")},
        "stats_config": {"use_all_default_tags": True},
        "overload_manager": _OVERLOAD,
    }


_OVERLOAD = {
    "refresh_interval": "0.5s",
    "resource_monitors": [
        {
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                "downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 20_000,
            },
        }
    ],
}


def _resources(path: Path, kind: str, messages: Sequence[Message]) -> File:
    return _file(path, resources(kind, messages))


def _file(path: Path, message: Message) -> File:
    return File(str(path), json.dumps(message, indent=1), 0o600)


def _numeric(address: Address) -> Address:
    """Envoy listens on addresses alone. Raises Misuse for a name that stands for none."""
    host = address.host
    try:
        return Address(str(ipaddress.ip_address(host)), address.port)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return Address(str(found[0][4][0]), address.port)
    except OSError as error:
        raise Misuse(
            f"application.host is {host}, and that is no address of this machine: {error.strerror}",
            hint="write its address",
        ) from error


def _reachable(address: Address) -> Address:
    """Where a listener on every address can be asked."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return Address(everywhere.get(address.host, address.host), address.port)


def find() -> Path:
    """Envoy's program: the packaged one, else the one on PATH. Raises EngineMissing."""
    found = importlib.util.find_spec("envoy")  # another distribution has this name, too
    packaged = Path(found.origin).parent / "_bin" / "envoy" if found and found.origin else None
    if packaged is not None and os.access(packaged, os.X_OK):
        return packaged
    on_path = shutil.which("envoy")
    if on_path is None:
        raise EngineMissing("Envoy", install="pip install 'outgrow[balancer]'")
    return Path(on_path)

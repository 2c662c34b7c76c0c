"""The application's own processes: its migrations, then the servers that run its code.

one server    app                          on the address of outgrow.toml
with workers  app, app.2, ...              likewise: the kernel spreads connections over them
balanced      app-1, app-1.2, app-2, ...   each server a host of its own; the balancer has the address
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from outgrow import endpoints
from outgrow.engines.balancer import Server
from outgrow.engines.base import Placement
from outgrow.topology.model import Topology
from outgrow.topology.rules import POOL_HOSTS
from outgrow.workload import Address, Probe, Stop, Workload

NAME = "app"
SERVE = "outgrow.runtime.serve"
MIGRATE = "outgrow.runtime.database.migrate"


ALONE, FIRST, POOLS = 10, 11, 111
"""Numbers of the emulated hosts: of a server without a balancer, of the first of "app", of the first
of the other pools."""

OWN_PORT = 9400
"""The first worker of a server is also reached at the port after this one, alone; and so on."""

SLOT_PORTS = 100
"""More than a server has workers. In slot 1 these ports begin so much later."""

SUCCESSOR = "~"
"""What the host of a server in slot 1 has at the end of its name: it starts while the one before serves."""


class Application:
    """An ASGI application on uvicorn. `after` is what its servers need first.

    `balanced_by` tells its processes whom to believe who a client is.
    """

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._settings = topology.application
        self._publishes, self._follows = topology.database.engine == "postgres", topology.cache.follow_changes
        self._balancer = topology.balancer
        self._cpu = topology.application.cpu or topology.fleet.host_cpu
        self._place = placement
        self.after: tuple[str, ...] = ()
        self.balanced_by: dict[str, str] = {}
        given = topology.database.migrations_url
        self.owner_url = endpoints.split_password(given)[0] if given is not None else None

    def workloads(self) -> tuple[Workload, ...]:
        """The migrations as a job, then every process, on sockets that outlive it."""
        return (self.migration(), *self.processes())

    def processes(self) -> tuple[Workload, ...]:
        """Every process that serves. Each is also reached alone, at an address of its own."""
        return tuple(each for server in self._all() for each in self._workers(*server))

    def servers(self) -> tuple[Server, ...]:
        """What a balancer chooses from; none where there is no balancer."""
        return tuple(server for server, _ in self._all()) if self._balancer.engine else ()

    def _all(self) -> Iterator[tuple[Server, int]]:
        """Each server, with the number of its host."""
        settings = self._settings
        if self._balancer.engine is None:
            yield Server(NAME, Address(settings.host, settings.port)), ALONE
            return
        pools = {NAME: settings.count, **self._balancer.pools}
        room = POOL_HOSTS // max(1, len(self._balancer.pools))
        for order, (pool, count) in enumerate(pools.items()):
            first = FIRST if order == 0 else POOLS + (order - 1) * room
            for number in range(count):
                host = first + number
                address = Address(self._place.neighbour(host), settings.port)
                yield Server(f"{pool}-{number + 1}", address, pool), host

    def _workers(self, server: Server, host: int) -> Iterator[Workload]:
        for worker in range(1, self._settings.workers + 1):
            own = Address(self._place.neighbour(host), OWN_PORT + SLOT_PORTS * self._place.slot + worker)
            name = server.name if worker == 1 else f"{server.name}.{worker}"
            variables = {"OUTGROW_APP": self._settings.app, "OUTGROW_NODE": name}
            if self._settings.warm_up:
                variables["OUTGROW_WARM_UP"] = " ".join(self._settings.warm_up)
            yield Workload(
                name=name,
                tier="application",
                argv=(sys.executable, "-m", SERVE),
                environment={**self._variables(), **self.balanced_by, **variables},
                directory=str(self._place.code),
                listen=(server.address, own),
                pool=server.pool if self._balancer.engine is not None else "",
                host=server.name + SUCCESSOR * self._place.slot,
                cpu=self._cpu,
                after=("migrate",),
                readiness=Probe("http", own),
                stop=Stop("TERM", grace_s=10),
            )

    def migration(self) -> Workload:
        """The job that brings the database to the newest migration."""
        return Workload(
            name="migrate",
            kind="job",
            argv=(sys.executable, "-m", MIGRATE),
            environment={**self._variables(), **self.migration_variables()},
            directory=str(self._place.code),
            after=self.after,
        )

    def migration_variables(self) -> dict[str, str]:
        """What the migrations need to know beside the endpoints."""
        variables = {"OUTGROW_SECRETS": str(self._place.operator_secrets)}
        if self._settings.migrations is not None:
            variables["OUTGROW_MIGRATIONS"] = str(self._place.code / self._settings.migrations)
        if self._publishes:
            variables["OUTGROW_FOLLOW"] = ",".join(self._follows)
        if self.owner_url is not None:
            variables["OUTGROW_MIGRATIONS_URL"] = self.owner_url
        return variables

    def _variables(self) -> dict[str, str]:
        return {
            "PYTHONUNBUFFERED": "1",
            **self._settings.environment,
            "OUTGROW_ENDPOINTS": str(self._place.endpoints),
        }

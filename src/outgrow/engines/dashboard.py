"""The dashboard of a fleet: a process beside the others, on which nothing depends."""

from __future__ import annotations

import sys

from outgrow.engines.base import Placement
from outgrow.topology.model import Topology
from outgrow.workload import Address, Stop, Workload

NAME = "dashboard"
HOST = "127.0.0.1"
MODULE = "outgrow.dashboard"
PORT_MAX = 65535
ABOVE = 1000
"""Its usual port is the application's plus this."""


class Dashboard:
    """Gathers the measures and serves the page that shows them, to this machine alone."""

    def __init__(self, topology: Topology, placement: Placement, port: int) -> None:
        self._settings = topology.dashboard
        self._place = placement
        self._port = port

    def workloads(self) -> tuple[Workload, ...]:
        """One process, started last. No probe: a fleet is ready without its dashboard."""
        if not self._settings.enabled:
            return ()
        return (
            Workload(
                name=NAME,
                argv=(sys.executable, "-m", MODULE),
                environment={
                    "OUTGROW_DIRECTORY": str(self._place.application),
                    "OUTGROW_ACTIONS": "1" if self._settings.actions else "0",
                },
                directory=str(self._place.application),
                listen=(Address(HOST, self._port),),
                after=("migrate",),
                stop=Stop("TERM", grace_s=3),
            ),
        )


def usual_port(topology: Topology) -> int:
    """Where it listens unless that is taken: as outgrow.toml says, else near the application's port."""
    if topology.dashboard.port is not None:
        return topology.dashboard.port
    port = topology.application.port
    return port + ABOVE if port + ABOVE <= PORT_MAX else port - ABOVE

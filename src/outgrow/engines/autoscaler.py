"""The autoscaler of a fleet: a process beside the others, on which nothing depends."""

from __future__ import annotations

import sys

from outgrow.engines.base import Placement
from outgrow.topology.model import Topology
from outgrow.workload import Stop, Workload

NAME = "autoscaler"
MODULE = "outgrow.growth.autoscaler"


class Autoscaler:
    """Watches the application's servers, and asks the fleet for more or fewer."""

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._settings = topology.autoscale
        self._place = placement

    def workloads(self) -> tuple[Workload, ...]:
        """One process, started last, when there is a target. A fleet is ready without it."""
        if not self._settings.on:
            return ()
        return (
            Workload(
                name=NAME,
                argv=(sys.executable, "-m", MODULE),
                environment={"OUTGROW_DIRECTORY": str(self._place.application)},
                directory=str(self._place.application),
                after=("migrate",),
                stop=Stop("TERM", grace_s=3),
            ),
        )

"""The application's own processes: its migrations, then the server that runs its code."""

from __future__ import annotations

import sys

from outgrow import endpoints
from outgrow.engines.base import Placement
from outgrow.topology.model import Topology
from outgrow.workload import Address, Probe, Stop, Workload

SERVE = "outgrow.runtime.serve"
MIGRATE = "outgrow.runtime.database.migrate"


class Application:
    """An ASGI application on uvicorn, one process. `after` is what its servers need first."""

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._settings = topology.application
        self._place = placement
        self.after: tuple[str, ...] = ()
        given = topology.database.migrations_url
        self.owner_url = endpoints.split_password(given)[0] if given is not None else None

    def workloads(self) -> tuple[Workload, ...]:
        """The migrations as a job, then the server, on a socket that outlives it."""
        address = Address(self._settings.host, self._settings.port)
        return (
            Workload(
                name="migrate",
                kind="job",
                argv=(sys.executable, "-m", MIGRATE),
                environment={**self._variables(), **self.migration_variables()},
                directory=str(self._place.application),
                after=self.after,
            ),
            Workload(
                name="app",
                tier="application",
                argv=(sys.executable, "-m", SERVE),
                environment={**self._variables(), "OUTGROW_APP": self._settings.app},
                directory=str(self._place.application),
                listen=(address,),
                after=("migrate",),
                readiness=Probe("http", address),
                stop=Stop("TERM", grace_s=10),
            ),
        )

    def migration_variables(self) -> dict[str, str]:
        """What the migrations need to know beside the endpoints."""
        variables = {"OUTGROW_SECRETS": str(self._place.operator_secrets)}
        if self._settings.migrations is not None:
            variables["OUTGROW_MIGRATIONS"] = str(self._place.application / self._settings.migrations)
        if self.owner_url is not None:
            variables["OUTGROW_MIGRATIONS_URL"] = self.owner_url
        return variables

    def _variables(self) -> dict[str, str]:
        return {
            "PYTHONUNBUFFERED": "1",
            **self._settings.environment,
            "OUTGROW_ENDPOINTS": str(self._place.endpoints),
        }

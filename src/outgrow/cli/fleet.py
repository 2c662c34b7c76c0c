"""The application as it runs now, for commands that work on it: its topology and its environment."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from outgrow import cluster, endpoints
from outgrow.cli import application
from outgrow.cluster.state import State
from outgrow.topology.model import Topology


def topology(directory: Path) -> Topology:
    """The topology at the stage that runs; without a fleet at the one that outgrow.toml says.

    Raises TopologyError, NotBuiltYet or FleetError.
    """
    if not cluster.running(directory):
        return application.topology(directory)
    return application.topology(directory, stage=asyncio.run(cluster.status(directory)).stage)


@contextmanager
def environment(topology: Topology, directory: Path) -> Iterator[dict[str, str]]:
    """The environment of a program that works on the application's tiers, migrations included.

    The endpoints are the running fleet's, or without one those that the topology itself tells (a
    SQLite file, a URL). Raises FleetNotRunning when the fleet would run the database and does not run.
    """
    settings = topology.application
    variables = {**settings.environment, "OUTGROW_APP": settings.app}
    migrations = cluster.migration_variables(topology, directory)
    with _endpoints(topology, directory) as path:
        yield {**variables, "OUTGROW_ENDPOINTS": str(path), **migrations}


@contextmanager
def _endpoints(topology: Topology, directory: Path) -> Iterator[Path]:
    state = State(directory)
    placement = state.placement()
    if state.holder() is not None:
        yield placement.endpoints
        return
    state.create()
    state.keep_secrets(topology)
    document = endpoints.from_topology(topology, placement.application, secrets_file=str(placement.secrets))
    # Nobody visits such a program, and the server of the sessions may be one that the fleet runs. So may that
    # of the cache, which begins empty.
    document = replace(document, sessions=endpoints.Sessions())
    if document.cache.engine == "redis" and document.cache.url is None:
        document = replace(document, cache=replace(document.cache, engine="memory"))
    with tempfile.TemporaryDirectory(prefix="outgrow-") as folder:
        path = Path(folder) / "endpoints.json"
        endpoints.write(path, document)
        yield path

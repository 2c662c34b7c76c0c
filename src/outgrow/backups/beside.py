"""The database as it was at a moment, beside the one that serves, with the application on it: to look at.

copy + log ─► a server of its own ─► one process of the application, whose queue has no workers
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.backups import history
from outgrow.backups.recovery import APPLICATION, ENDS_WITH_US, HOST_NUMBER, Recovery, unpack
from outgrow.cluster.state import State
from outgrow.endpoints import Database, Endpoints, Node, Queue
from outgrow.engines import Placement
from outgrow.engines.application import OWN_PORT, Application
from outgrow.engines.backup import folder
from outgrow.engines.postgres.postgres import PORT
from outgrow.errors import FleetError, FleetNotRunning
from outgrow.supervisor import orphans, process
from outgrow.supervisor.probe import until_ready
from outgrow.topology import Topology
from outgrow.workload import Address, Probe

STARTS_WITHIN_S = 60.0
GRACE_S = 10.0
NAME = "restored"
CONNECTIONS = 2
"""Of the one process, which only a drill asks."""


@asynccontextmanager
async def restored(directory: Path, topology: Topology, moment: float) -> AsyncIterator[str]:
    """Where the application answers from that moment's data, within the block. The fleet must run.

    Raises Misuse when no copy was complete by then, FleetNotRunning and FleetError.
    """
    state = State(directory)
    running = _published(state)
    line, copy = history.chosen(history.histories(folder(topology, state.application)), moment)
    with _space(state.placement().data / "restored") as place:
        await asyncio.to_thread(unpack, line.place(copy.name), place / "postgres")
        host = _neighbour(state, running)
        recovery = Recovery(state, topology, line, place / "postgres", host, APPLICATION)
        async with recovery.recovered(moment):
            file = place / "endpoints.json"
            endpoints.write(file, _with_restored(running, topology.application.name, host))
            async with _serving(state, topology, file, Address(host, OWN_PORT + 1)) as url:
                yield url


def _published(state: State) -> Endpoints:
    document = state.published()
    if state.holder() is None or document is None:
        raise FleetNotRunning(str(state.application))
    return document


def _neighbour(state: State, running: Endpoints) -> str:
    """An address of this fleet's that none of its nodes has."""
    host = str(urlsplit(running.database.shards[0].nodes[0].url).hostname)
    return state.placement(host).neighbour(HOST_NUMBER)


@contextmanager
def _space(place: Path) -> Iterator[Path]:
    """A folder that goes again; what an earlier one has left goes first."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _with_restored(running: Endpoints, name: str, host: str) -> Endpoints:
    """The same, but for the database. Nobody works on messages: what they cause has happened already."""
    node = Node(endpoints.DATABASE, f"postgresql://{name}@{host}:{PORT}/{name}")
    (shard,) = running.database.shards
    database: Database = replace(
        running.database, shards=(replace(shard, nodes=(node,)),), replication="none", pool=CONNECTIONS
    )
    return replace(running, database=database, queue=Queue(workers=0), control=None)


@asynccontextmanager
async def _serving(state: State, topology: Topology, file: Path, address: Address) -> AsyncIterator[str]:
    """One process of the application at this address, with these endpoints."""
    own = Application(topology, _placement(state)).processes()[0]
    environment = {
        **os.environ,
        **own.environment,
        "OUTGROW_ENDPOINTS": str(file),
        "OUTGROW_NODE": NAME,
        "OUTGROW_HOST": address.host,
        "OUTGROW_PORT": str(address.port),
        orphans.MARK: state.fleet,
    }
    with (state.logs / f"{NAME}.log").open("wb") as log:
        argv = (*ENDS_WITH_US, *own.argv)
        child = process.start(argv, environment, output=log, directory=own.directory)
    try:
        await _until_serves(child, Probe("http", address, timeout_s=STARTS_WITHIN_S), log.name)
        yield f"http://{address}"
    finally:
        await asyncio.shield(child.stop("TERM", GRACE_S))


def _placement(state: State) -> Placement:
    """With the code that runs now."""
    return state.placement()._replace(release=next(reversed(state.ran()), 0))


async def _until_serves(child: process.Process, probe: Probe, log: str) -> None:
    ready, ended = asyncio.ensure_future(until_ready(probe, os.environ)), asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise FleetError("the application did not start on what was restored", hint=f"see {log}")
        ready.result()
    except TimeoutError:
        raise FleetError("the application does not answer on what was restored", hint=f"see {log}") from None
    finally:
        for each in (ready, ended):
            each.cancel()
        await asyncio.gather(ready, ended, return_exceptions=True)

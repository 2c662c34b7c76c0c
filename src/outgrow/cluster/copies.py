"""More or fewer replicas of a database, while it serves.

more    new hosts start, each copies the database ─► they follow ─► published
fewer   no longer published ─► processes have left them ─► ended, their copies removed

Each turn compares what runs with what is wanted, so it can be repeated after an interruption at any line.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster.front import Front
from outgrow.cluster.plan import capped
from outgrow.cluster.state import State
from outgrow.engines import Placement
from outgrow.engines.patroni.client import Client, look
from outgrow.engines.patroni.patroni import PREFIX, Patroni
from outgrow.errors import FleetError
from outgrow.supervisor.supervisor import Supervisor
from outgrow.topology import Topology

READS_END_S = 1.0
"""For read blocks that began before a replica was published no more; later ones are told to try again."""


async def become(
    supervisor: Supervisor, front: Front, state: State, topology: Topology, placement: Placement
) -> None:
    """Run the replicas of this topology and no others. Raises EngineMissing, NodeFailed or FleetError."""
    engine = await asyncio.to_thread(Patroni, topology, placement)
    gone = [
        name
        for name in supervisor.nodes
        if name.startswith(PREFIX) and name not in engine.hosts and _is_number(name)
    ]
    await _require_no_primary(gone, placement, topology)
    added = [each for each in engine.servers() if each.name not in supervisor.nodes]
    try:
        await supervisor.start([capped(each, topology) for each in added])
    except BaseException:
        await supervisor.remove([each.name for each in added])
        raise
    await asyncio.to_thread(_tell_all, engine, state)
    await _publish(front, state, engine)
    if gone:
        await asyncio.sleep(READS_END_S)
        await _remove(supervisor, engine, gone)


def _is_number(name: str) -> bool:
    return name.removeprefix(PREFIX).isdecimal()


async def _require_no_primary(gone: Sequence[str], placement: Placement, topology: Topology) -> None:
    """Whoever is the primary stays: the command makes another node it before."""
    if not gone:
        return
    copies = max(int(name.removeprefix(PREFIX)) for name in gone) - 1
    database = replace(topology.database, replicas=copies)
    hosts = Patroni(replace(topology, database=database), placement).hosts
    for name in gone:
        member = await asyncio.to_thread(look, name, hosts[name])
        if member is not None and member.role == "primary":
            raise FleetError(
                f"{name} is to go, and it is the primary", hint=f"`outgrow switchover {PREFIX}1`, then again"
            )


def _tell_all(engine: Patroni, state: State) -> None:
    """How many replicas confirm a commit is a setting of all nodes."""
    password = endpoints.read_secrets(state.placement().operator_secrets).passwords["patroni"]
    client, wrong = Client(password), FleetError("no node answers")
    for host in engine.hosts.values():
        try:
            client.change("PATCH", host, "/config", engine.dynamic())
        except FleetError as error:
            wrong = error
        else:
            return
    raise wrong


async def _publish(front: Front, state: State, engine: Patroni) -> None:
    before = front.published()
    shards = tuple(replace(shard, nodes=engine.nodes) for shard in before.database.shards)
    database = replace(before.database, shards=shards)
    after = replace(before, database=database, epoch=before.epoch + 1)
    endpoints.write(state.placement().endpoints, after)
    state.epoch = after.epoch
    state.note(state.notes)
    await front.ask("reload")


async def _remove(supervisor: Supervisor, engine: Patroni, gone: Sequence[str]) -> None:
    await supervisor.remove(gone)
    for name in gone:
        await asyncio.to_thread(shutil.rmtree, engine.data(name), ignore_errors=True)

"""What drills of replication have in common: who the primary is, and when everything is in order again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from outgrow.chaos import takeover, verdict
from outgrow.chaos.drills.drill import own_postgres
from outgrow.chaos.faults.fault import Fault
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.cluster import NodeStatus
from outgrow.errors import OutgrowError
from outgrow.topology import Topology

WHOLE_WITHIN_S = 60.0
TAKEOVER_S = 3.0
"""Within which writes succeed again where the loss can be proven."""

LEASE_S = 20.0
"""Where it cannot, the lease has to run out first (engines/patroni/patroni.py)."""

RETURN_S = 15.0
WATCHED_S = 3.0
AGAIN = "is in order again, as a replica"


class Roles(NamedTuple):
    """The database's nodes."""

    primary: NodeStatus
    replicas: list[NodeStatus]


def replicated(topology: Topology) -> str | None:
    """What is lacking where the fleet runs no PostgreSQL with replicas."""
    if not topology.database.copies:
        return "a PostgreSQL of the fleet's with replicas: `outgrow grow replication`"
    return own_postgres(topology)


async def roles(scene: Scene) -> Roles:
    """As they are now. Raises OutgrowError when there is no primary."""
    nodes = [each for each in await scene.nodes("database") if each.role]
    primaries = [each for each in nodes if each.role == "primary"]
    if not primaries:
        raise OutgrowError("no primary is known", hint="wait until `outgrow status` shows one")
    return Roles(primaries[0], [each for each in nodes if each is not primaries[0]])


async def lose_primary(scene: Scene, fault: Callable[[NodeStatus], Fault]) -> None:
    """As often as is wanted, each time when everything is in order again."""
    for _ in range(scene.events(1)):
        primary = (await roles(scene)).primary
        async with scene.fault(fault(primary), primary.name):
            await until_taken_over(scene, primary.name, WHOLE_WITHIN_S)
        await until_whole(scene, primary.name)
        await scene.rest(WATCHED_S)


async def until_taken_over(scene: Scene, before: str, within_s: float) -> bool:
    """Until another node is the primary."""

    async def another() -> bool:
        nodes = await scene.nodes("database")
        return any(each.role == "primary" and each.name != before for each in nodes)

    return await scene.until(another, within_s)


async def until_whole(scene: Scene, name: str, note: str = AGAIN) -> None:
    """Until every node has its role and is on one timeline, which is noted of this one."""

    async def whole() -> bool:
        nodes = [each for each in await scene.nodes("database") if each.role]
        return len(nodes) == scene.topology.database.copies + 1 and len({n.timeline for n in nodes}) == 1

    if await scene.until(whole, WHOLE_WITHIN_S):
        scene.watch.note("note", name, note)


def taken_over(history: History, topology: Topology, *, within_s: float = TAKEOVER_S) -> Iterator[Finding]:
    """What holds when a primary is lost, however often: writes, reads, data, its return."""
    faults = history.moments("fault")
    asynchronous = topology.database.replication == "async"
    yield takeover.writes_again(history, faults, within_s=within_s)
    yield takeover.reads_go_on(history, faults, told_lost=asynchronous)
    yield takeover.returns(history, AGAIN, within_s=RETURN_S)
    yield takeover.lost(history, faults) if asynchronous else verdict.lost(history)
    yield verdict.repeated(history)
    yield verdict.stale(history)

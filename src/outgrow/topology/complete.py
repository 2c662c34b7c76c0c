"""What follows from the keys when they are absent: the stage chooses."""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from outgrow.topology.model import STAGES, Topology

STATE = ".outgrow"
DATA = f"{STATE}/data"

PLAIN = "scale-out"
"""From this stage on there is a balancer and more than one server; at this one it reads no HTTP."""

REPLICATED = "replication"
"""From this stage on the database has replicas."""

REPLICAS = 2
"""So that one is left when the primary is lost, and the other follows it."""

CACHED = "cache"
"""From this stage on all processes share a cache."""

SHARED = "stateless"
"""From this stage on sessions are in a store of their own, which all servers share."""


def complete(topology: Topology) -> Topology:
    """The same with everything said that follows: the stage chooses the engine, the name the file."""
    database, balancer = topology.database, topology.balancer
    several = STAGES.index(topology.stage) >= STAGES.index(PLAIN)
    engine = balancer.engine or ("envoy" if several else None)
    application = replace(topology.application, servers=topology.application.servers or (2 if several else 1))
    balancer = replace(balancer, engine=engine, layer=layer_of(topology))
    sessions = replace(topology.sessions, engine=sessions_of(topology))
    cache = replace(topology.cache, engine=cache_of(topology))
    topology = replace(topology, application=application, balancer=balancer, sessions=sessions, cache=cache)
    if is_postgres(topology):
        database = replace(database, engine="postgres", file=None, replicas=replicas_of(topology))
        return replace(topology, database=database)
    file = database.file or f"{DATA}/{topology.application.name}.db"
    return replace(topology, database=replace(database, engine="sqlite", file=file, replicas=0))


def replicas_of(topology: Topology) -> int:
    """How many it has: those asked for, or those of the stage; none beside a server of somebody else."""
    database = topology.database
    if database.replicas is not None or database.url is not None:
        return database.copies
    return REPLICAS if STAGES.index(topology.stage) >= STAGES.index(REPLICATED) else 0


def copies_below(topology: Topology) -> int:
    """How many replicas a topology keeps at a stage before they come by themselves: those asked for there."""
    return 0 if STAGES.index(topology.stage) >= STAGES.index(REPLICATED) else topology.database.copies


def usual_sessions(stage: str) -> Literal["off", "redis"]:
    """Where they are at that stage unless the file says it."""
    return "redis" if STAGES.index(stage) >= STAGES.index(SHARED) else "off"


def sessions_of(topology: Topology) -> Literal["off", "memory", "database", "redis"]:
    """Where sessions are kept."""
    return topology.sessions.engine or usual_sessions(topology.stage)


def cache_of(topology: Topology) -> Literal["memory", "redis", "off"]:
    """Where the cache is: what the file says, or what belongs to the stage."""
    shared = STAGES.index(topology.stage) >= STAGES.index(CACHED)
    return topology.cache.engine or ("redis" if shared else "memory")


def layer_of(topology: Topology) -> Literal[4, 7]:
    """What the balancer reads: 7 is HTTP."""
    return 4 if topology.stage == PLAIN else topology.balancer.layer


def has_balancer(topology: Topology) -> bool:
    """Whether one is asked for, or belongs to the stage."""
    return topology.balancer.engine is not None or STAGES.index(topology.stage) >= STAGES.index(PLAIN)


def is_postgres(topology: Topology) -> bool:
    """Whether it is anywhere but in a file."""
    return topology.database.url is not None or topology.stage != STAGES[0]

"""From a topology to what must run and where it can be found. Decides, and starts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster.state import State
from outgrow.endpoints import Endpoints, Node
from outgrow.engines import Placement
from outgrow.engines.application import ALONE, FIRST, OWN_PORT, Application
from outgrow.engines.autoscaler import Autoscaler
from outgrow.engines.dashboard import Dashboard
from outgrow.errors import FleetNotRunning
from outgrow.topology import Topology
from outgrow.workload import Workload

if TYPE_CHECKING:
    from outgrow.engines.envoy.envoy import Envoy
    from outgrow.engines.patroni.patroni import Patroni
    from outgrow.engines.postgres.postgres import Postgres


class Plan(NamedTuple):
    """The workloads in the order of their start, and the document that the application reads."""

    workloads: tuple[Workload, ...]
    document: Endpoints


def runs_postgres(topology: Topology) -> bool:
    """Whether the fleet itself runs the PostgreSQL of this topology."""
    return topology.database.engine == "postgres" and topology.database.url is None


def replicated(topology: Topology) -> bool:
    """Whether the fleet itself runs a primary and replicas for this topology."""
    return runs_postgres(topology) and topology.database.copies > 0


def runs_sessions(topology: Topology) -> bool:
    """Whether the fleet itself runs the Redis of this topology's sessions."""
    return topology.sessions.engine == "redis" and topology.sessions.url is None


def runs_cache(topology: Topology) -> bool:
    """Whether the fleet itself runs the Redis of this topology's cache."""
    return topology.cache.engine == "redis" and topology.cache.url is None


def runs_pgbouncer(topology: Topology) -> bool:
    """Whether the processes of this topology share connections to the fleet's own PostgreSQL."""
    from outgrow.engines.postgres.postgres import pooled

    return runs_postgres(topology) and pooled(topology)


def plan(
    topology: Topology,
    placement: Placement,
    *,
    epoch: int,
    dashboard_port: int,
    sessions_host: str = "127.0.0.1",
    cache_host: str = "127.0.0.1",
    moving: endpoints.Sessions | None = None,
) -> Plan:
    """What this topology needs at this place. Raises EngineMissing.

    `moving`: where sessions are while a move of them is not finished, whatever the topology says.
    """
    application, engine = _front(topology, placement)
    servers: tuple[Workload, ...] = ()
    nodes: tuple[Node, ...] = ()
    if (database := own_database(topology, placement)) is not None:
        servers, nodes = tuple(capped(each, topology) for each in database.workloads()), database.nodes
        application.owner_url, application.after = database.owner_url, (database.last,)
    if runs_pgbouncer(topology):
        from outgrow.engines.pgbouncer.pgbouncer import PgBouncer

        pooler = PgBouncer(topology, placement)
        servers = (*servers, *(capped(each, topology) for each in pooler.workloads()))
        nodes = (Node(endpoints.DATABASE, pooler.url, pooled=True),)
        application.after = (*application.after, pooler.last)
    sessions, caches = None, []
    if runs_sessions(topology) or moving is not None:
        from outgrow.engines.redis.sessions import RedisSessions

        sessions = RedisSessions(topology, placement._replace(host=sessions_host))
    if runs_cache(topology):
        from outgrow.engines.redis import cache

        caches = cache.servers(topology, placement._replace(host=cache_host))
    for redis in (*(() if sessions is None else (sessions,)), *caches):
        servers = (*servers, *(capped(each, topology) for each in redis.workloads()))
        application.after = (*application.after, redis.last)
    sessions_url = sessions.url if sessions is not None else None
    document = endpoints.from_topology(
        topology,
        placement.application,
        epoch=epoch,
        nodes=nodes,
        sessions_url=sessions_url,
        cache_urls=[each.url for each in caches],
        changes_url=database.changes_url if database is not None else None,
        secrets_file=str(placement.secrets),
        control=str(placement.control),
    )
    if moving is not None:
        document = replace(document, sessions=_found_again(moving, sessions_url))
    dashboard = Dashboard(topology, placement, dashboard_port)
    beside = (*autoscaler(topology, placement), *dashboard.workloads())
    if database is not None and topology.backup.directory is not None:
        from outgrow.engines.backup import Backup

        beside = (*Backup(topology, placement, database.owner_url, database.last).workloads(), *beside)
    whole = (*servers, *application.workloads(), *_balancers(topology, engine), *beside)
    return Plan(whole, document)


def sessions_under_way(topology: Topology, before: Endpoints | None) -> endpoints.Sessions | None:
    """Where an unfinished move has left the sessions, if one of the places is the fleet's own Redis."""
    if before is None or topology.sessions.url is not None:
        return None
    kept = before.sessions
    away = kept.also is not None or kept.engine != topology.sessions.engine
    return kept if away and "redis" in (kept.engine, kept.also and kept.also.engine) else None


def _found_again(sessions: endpoints.Sessions, url: str | None) -> endpoints.Sessions:
    """The same places, the Redis among them at its present address."""
    if sessions.engine == "redis":
        return replace(sessions, url=url)
    return replace(sessions, also=endpoints.SessionStore("redis", url))


def migration(topology: Topology, placement: Placement) -> Workload:
    """The job that brings the database of a running fleet to the newest migration of its code."""
    application = Application(topology, placement)
    if (database := own_database(topology, placement)) is not None:
        application.owner_url, application.after = database.owner_url, (database.last,)
    return application.migration()


def own_database(topology: Topology, placement: Placement) -> Postgres | Patroni | None:
    """The engine of the database, where the fleet runs one. Raises EngineMissing."""
    if not runs_postgres(topology):
        return None
    if replicated(topology):
        from outgrow.engines.patroni.patroni import Patroni

        return Patroni(topology, placement)
    from outgrow.engines.postgres.postgres import Postgres

    return Postgres(topology, placement)


def needs(topology: Topology) -> tuple[tuple[int, int], ...]:
    """Numbers of emulated hosts, and the port that each must have free (State.free_host)."""
    port = OWN_PORT + 1
    if not runs_postgres(topology):
        return ((1, port), (ALONE, port), (FIRST, port))
    from outgrow.engines.pgbouncer.pgbouncer import PORT as POOLER_PORT
    from outgrow.engines.postgres.postgres import PORT

    usual = ((1, PORT), (1, POOLER_PORT), (ALONE, port), (FIRST, port))
    if not replicated(topology):
        return usual
    from outgrow.engines.etcd import etcd
    from outgrow.engines.patroni import patroni

    return (*usual, (patroni.FIRST, PORT), (etcd.FIRST, etcd.CLIENTS))


def front(topology: Topology, placement: Placement) -> tuple[Workload, ...]:
    """What stands before the database: the application's processes, then the balancers.

    Raises EngineMissing.
    """
    application, engine = _front(topology, placement)
    return (*application.processes(), *_balancers(topology, engine))


def autoscaler(topology: Topology, placement: Placement) -> tuple[Workload, ...]:
    """What changes the number of servers by itself; nothing where [autoscale] has no target."""
    return Autoscaler(topology, placement).workloads()


def balancer(topology: Topology, placement: Placement, *, without: str = "") -> Envoy | None:
    """The engine of the balancers, knowing every server but one; None where there are no balancers.

    Raises EngineMissing.
    """
    if topology.balancer.engine is None:
        return None
    from outgrow.engines.envoy.envoy import Envoy

    servers = Application(topology, placement).servers()
    return Envoy(topology, placement, [each for each in servers if each.name != without])


def _front(topology: Topology, placement: Placement) -> tuple[Application, Envoy | None]:
    application, engine = Application(topology, placement), balancer(topology, placement)
    if engine is not None:
        application.balanced_by = engine.environment
    return application, engine


def _balancers(topology: Topology, engine: Envoy | None) -> tuple[Workload, ...]:
    return tuple(capped(each, topology) for each in engine.workloads()) if engine is not None else ()


def capped(workload: Workload, topology: Topology) -> Workload:
    """Every server that the fleet runs is a host of its own, as each application server is, or says whose."""
    if workload.kind == "job":
        return workload
    return replace(workload, host=workload.host or workload.name, cpu=topology.fleet.host_cpu)


def continued(document: Endpoints, before: Endpoints | None) -> Endpoints:
    """The document of a new start, with what an earlier move has left in the one before."""
    if before is None or not before.moved or before.database.engine != document.database.engine:
        return document
    shards = tuple(
        replace(shard, timeline=earlier.timeline)
        for shard, earlier in zip(document.database.shards, before.database.shards, strict=True)
    )
    return replace(document, moved=True, database=replace(document.database, shards=shards))


def migration_variables(topology: Topology, directory: Path) -> dict[str, str]:
    """The environment of `python -m outgrow.runtime.database.migrate` against what runs now.

    Raises FleetNotRunning when the fleet runs the database and is not running itself.
    """
    state = State(directory)
    placement = state.placement()
    application = Application(topology, placement)
    if runs_postgres(topology):
        application.owner_url = running_database(topology, state).owner_url
    return application.migration_variables()


def running_database(topology: Topology, state: State) -> Postgres | Patroni:
    """The engine of the database where it runs now. Raises FleetNotRunning."""
    if state.holder() is None:
        raise FleetNotRunning(str(state.application))
    placement = state.placement()
    document = endpoints.read(placement.endpoints)
    host = str(urlsplit(document.database.shards[0].nodes[0].url).hostname)
    # All nodes of a fleet differ in the last part of their address alone.
    first = placement._replace(host=host)
    database = own_database(topology, first._replace(host=first.neighbour(1)))
    assert database is not None
    return database

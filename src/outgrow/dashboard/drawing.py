"""The topology as a drawing: from what runs and what the endpoints document says to boxes and links. Pure.

clients ─► (edge) ─► (balancer) ─► application ─► (sessions) (cache) (queue) (pooler) ─► database
                                     └ tiers that live in its processes: boxes inside its box
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from outgrow.advisor.measures import Tally
from outgrow.cluster.status import Backups
from outgrow.dashboard.servers import name_of
from outgrow.dashboard.snapshot import Box, Drawing, Figure, Link, Node, Replica, Server
from outgrow.endpoints import Endpoints
from outgrow.engines.redis.cache import Figures as CacheFigures

TIERS = (
    "clients",
    "edge",
    "balancer",
    "application",
    "worker",
    "sessions",
    "cache",
    "queue",
    "pooler",
    "database",
)
FRONT = ("edge", "balancer", "application")
"""A request goes through these one after the other, where they exist."""

BEHIND = ("sessions", "cache", "queue", "pooler", "database")
"""What the application asks; where there is a pooler, it asks the database."""

DRAWN_MAX = 1
"""Of more servers than this, what is inside each is said in words."""

ENGINES = {
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "pgbouncer": "PgBouncer",
    "memory": "in memory",
    "database": "in the database",
    "redis-sessions": "Redis",
    "redis-cache": "Redis",
}


class Front(NamedTuple):
    """What is known beside the nodes: servers, figures of the balancers, the nodes of a database."""

    servers: Mapping[str, Server] = {}
    rates: Mapping[str, float | None] = {}
    connections: Mapping[str, int | None] = {}
    replicas: Mapping[str, Replica] = {}
    backups: Backups | None = None
    cache: CacheFigures | None = None
    evicted: float | None = None


def draw(
    nodes: Sequence[Node],
    front: Front,
    document: Endpoints | None,
    tallies: Mapping[str, Tally],
    whole: Tally,
    size: int | None,
) -> Drawing:
    """`tallies` are by process, `whole` is their sum; `size` is that of a database that is a file."""
    running = [node for node in nodes if node.tier in TIERS and node.tier != "application"]
    boxes = [_clients(whole), *(_node_box(node, front, whole) for node in running)]
    boxes += [_server_box(server) for server in front.servers.values()]
    of_servers = _by_server(tallies)
    links = _links(boxes, front, of_servers, whole)
    notes = {} if front.backups is None else {"database": _backed_up(front.backups)}
    if document is not None:
        _add_database(boxes, links, document, of_servers, whole, size)
        _add_parts(boxes, notes, document, of_servers)
    present = {box.tier for box in boxes if box.inside is None}
    return Drawing([tier for tier in TIERS if tier in present], boxes, links, notes)


def _backed_up(backups: Backups) -> str:
    if backups.earliest is None:
        return "not backed up yet"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(backups.earliest))
    return f"backed up since {since}"


def _by_server(tallies: Mapping[str, Tally]) -> dict[str, Tally]:
    found: dict[str, Tally] = {}
    for node, tally in tallies.items():
        name = name_of(node)
        found[name] = found[name].plus(tally) if name in found else tally
    return found


def _clients(whole: Tally) -> Box:
    figures = [Figure("requests", whole.rate, "rate"), Figure("errors", whole.errors, "rate")]
    return Box("clients", "clients", "Clients", "", "ready", figures)


def _server_box(server: Server) -> Box:
    count = len(server.processes)
    return Box(
        server.name,
        "application",
        server.name,
        "application" if count == 1 else f"{count} processes",
        server.state,
        [
            Figure("requests", server.rate, "rate"),
            Figure("p99", server.p99, "ms"),
            Figure("CPU", server.cpu, "cores"),
            Figure("memory", server.memory, "bytes"),
        ],
        text=server.text,
        address=server.address,
        pid=server.pid if count == 1 else None,
        since=server.since,
        restarts=server.restarts,
    )


def _node_box(node: Node, front: Front, whole: Tally) -> Box:
    figures = [Figure("CPU", node.cpu, "cores"), Figure("memory", node.memory, "bytes")]
    if node.tier == "balancer":
        asked = Figure("requests", front.rates.get(node.name), "rate")
        figures = [asked, Figure("connections", front.connections.get(node.name), "count"), *figures]
    elif node.name in front.replicas:
        figures = [*_replica_figures(front.replicas[node.name]), *figures]
    elif node.tier == "database":
        figures = [*_query_figures(whole), *figures]
    elif node.tier == "cache":
        figures = [Figure("hits", whole.hit_share, "share"), *_cache_figures(front), *figures]
    elif node.tier == "pooler":
        figures = [Figure("queries", _queries(whole), "rate"), *figures]
    replica = front.replicas.get(node.name)
    return Box(
        node.name,
        node.tier,
        node.name,
        (replica.role if replica is not None else "") or ENGINES.get(node.name, node.tier),
        node.state,
        figures,
        text=node.text,
        address=node.address,
        pid=node.pid,
        since=node.since,
        restarts=node.restarts,
    )


def _links(boxes: Sequence[Box], front: Front, tallies: Mapping[str, Tally], whole: Tally) -> list[Link]:
    """Tier after tier to the application, and from it to everything behind it."""
    by_tier = {tier: [box.id for box in boxes if box.tier == tier] for tier in TIERS}
    ways = [["clients"], *(by_tier[tier] for tier in FRONT if by_tier[tier])]
    links = []
    for sources, targets in pairwise(ways):
        links += [
            Link(source, target, _asked(source, target, front, whole))
            for source in sources
            for target in targets
        ]
    askers = [*by_tier["application"], *by_tier["worker"]]
    data = "pooler" if by_tier["pooler"] else "database"
    for tier in (*(each for each in BEHIND if each not in ("pooler", "database")), data):
        links += [
            Link(asker, name, _asks(tallies.get(asker), name, front) if tier == data else None)
            for asker in askers
            for name in by_tier[tier]
        ]
    links += [
        Link(pooler, name, _queries(whole)) for pooler in by_tier["pooler"] for name in by_tier["database"]
    ]
    return links


def _asks(tally: Tally | None, name: str, front: Front) -> float | None:
    """Statements a second; of a database with replicas the read blocks that go to this node."""
    if name not in front.replicas:
        return _queries(tally)
    if tally is None or not tally.seconds:
        return None
    return sum(count for (node, _), count in tally.reads.items() if node == name) / tally.seconds


def _asked(source: str, target: str, front: Front, whole: Tally) -> float | None:
    """Requests a second on one way. A standby passes nothing on: its part of each server's is nothing."""
    if target not in front.servers:
        return front.rates[target] if front.rates.get(target) is not None else whole.rate
    rate = front.servers[target].rate
    asked = sum(each or 0.0 for each in front.rates.values())
    if rate is None or source not in front.rates or not asked:
        return rate
    return rate * (front.rates[source] or 0.0) / asked


def _add_database(
    boxes: list[Box],
    links: list[Link],
    document: Endpoints,
    tallies: Mapping[str, Tally],
    whole: Tally,
    size: int | None,
) -> None:
    """A database that is no node of the fleet: a file of the application's server, or somebody else's."""
    if any(box.tier == "database" for box in boxes):
        return
    hosts = [box for box in boxes if box.tier == "application"]
    engine, figures = document.database.engine, _query_figures(whole)
    if engine == "sqlite" and hosts:
        figures.append(Figure("size", size, "bytes"))
        boxes.append(_inside(hosts[0], "database", "Database", ENGINES[engine], figures))
    elif engine == "postgres":
        boxes.append(Box("database", "database", "Database", "PostgreSQL of your own", "ready", figures))
        links += [Link(host.id, "database", _queries(tallies.get(host.id))) for host in hosts]


def _add_parts(
    boxes: list[Box], notes: dict[str, str], document: Endpoints, tallies: Mapping[str, Tally]
) -> None:
    """Tiers inside the application's processes: drawn in a single server, said of several."""
    hosts = [box for box in boxes if box.tier == "application"]
    cached, workers = document.cache.engine == "memory", document.queue.workers
    if len(hosts) > DRAWN_MAX:
        parts = ["a cache in memory"] * cached + [f"{workers} queue workers"] * bool(workers)
        if parts:
            notes["application"] = f"in each process: {' and '.join(parts)}"
        return
    for host in hosts:
        tally = tallies.get(host.id, Tally())
        if cached:
            figures = [Figure("hits", tally.hit_share, "share")]
            boxes.append(_inside(host, "cache", "Cache", ENGINES["memory"], figures))
        if workers:
            done = sum(tally.tasks.values()) / tally.seconds if tally.seconds else 0.0
            figures = [Figure("tasks", done, "rate")]
            boxes.append(_inside(host, "queue", "Queue", f"{workers} workers", figures))


def _inside(host: Box, tier: str, title: str, detail: str, figures: list[Figure]) -> Box:
    return Box(f"{host.id}/{tier}", tier, title, detail, host.state, figures, inside=host.id)


def _replica_figures(replica: Replica) -> list[Figure]:
    figures = [Figure("reads", replica.reads, "rate")]
    return figures if replica.role == "primary" else [*figures, Figure("behind", replica.lag, "bytes")]


def _cache_figures(front: Front) -> list[Figure]:
    now = front.cache
    full = now.memory / now.memory_max if now is not None and now.memory_max else None
    return [Figure("full", full, "share"), Figure("evicted", front.evicted, "rate")]


def _query_figures(whole: Tally) -> list[Figure]:
    return [
        Figure("queries", _queries(whole), "rate"),
        Figure("p99", _ms(whole.queries.quantile(0.99)), "ms"),
    ]


def _queries(tally: Tally | None) -> float | None:
    return tally.queries.count / tally.seconds if tally is not None and tally.seconds else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000

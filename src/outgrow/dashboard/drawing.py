"""The topology as a drawing: from what runs and what the endpoints document says to boxes and links. Pure.

clients ─► (edge) ─► (balancer) ─► application ─► (cache) (queue) ─► database
                                     └ tiers that live in its processes: boxes inside its box
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from outgrow.advisor.measures import Tally
from outgrow.dashboard.snapshot import Box, Drawing, Figure, Link, Node
from outgrow.endpoints import Endpoints

TIERS = ("clients", "edge", "balancer", "application", "worker", "sessions", "cache", "queue", "database")
FRONT = ("edge", "balancer", "application")
"""A request goes through these one after the other, where they exist."""

BEHIND = ("sessions", "cache", "queue", "database")
"""What the application asks."""

ENGINES = {
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "memory": "in memory",
    "database": "in the database",
    "redis-sessions": "Redis",
}


def draw(
    nodes: Sequence[Node],
    document: Endpoints | None,
    tallies: Mapping[str, Tally],
    whole: Tally,
    size: int | None,
) -> Drawing:
    """`tallies` are by process, `whole` is their sum; `size` is that of a database that is a file."""
    running = [node for node in nodes if node.tier in TIERS]
    boxes = [_clients(whole), *(_node_box(node, tallies.get(node.name), whole) for node in running)]
    links = _links(running, tallies, whole)
    if document is not None:
        _add_tiers(boxes, links, document, tallies, whole, size)
    present = {box.tier for box in boxes if box.inside is None}
    return Drawing([tier for tier in TIERS if tier in present], boxes, links)


def _clients(whole: Tally) -> Box:
    figures = [Figure("requests", whole.rate, "rate"), Figure("errors", whole.errors, "rate")]
    return Box("clients", "clients", "Clients", "", "ready", figures)


def _node_box(node: Node, tally: Tally | None, whole: Tally) -> Box:
    figures = [Figure("CPU", node.cpu, "cores"), Figure("memory", node.memory, "bytes")]
    if node.tier == "application":
        rate = tally.rate if tally is not None else None
        p99 = _ms(tally.requests.quantile(0.99)) if tally is not None else None
        figures = [Figure("requests", rate, "rate"), Figure("p99", p99, "ms"), *figures]
    elif node.tier == "database":
        figures = [*_query_figures(whole), *figures]
    return Box(
        node.name,
        node.tier,
        node.name,
        ENGINES.get(node.name, node.tier),
        node.state,
        figures,
        text=node.text,
        address=node.address,
        pid=node.pid,
        since=node.since,
        restarts=node.restarts,
    )


def _links(nodes: Sequence[Node], tallies: Mapping[str, Tally], whole: Tally) -> list[Link]:
    """Tier after tier to the application, and from it to everything behind it."""
    by_tier = {tier: [node.name for node in nodes if node.tier == tier] for tier in TIERS}
    front = [["clients"], *(by_tier[tier] for tier in FRONT if by_tier[tier])]
    links = []
    for sources, targets in pairwise(front):
        links += [
            Link(source, target, _rate(tallies.get(target), whole))
            for source in sources
            for target in targets
        ]
    askers = [*by_tier["application"], *by_tier["worker"]]
    for tier in BEHIND:
        links += [
            Link(asker, name, _queries(tallies.get(asker)) if tier == "database" else None)
            for asker in askers
            for name in by_tier[tier]
        ]
    return links


def _add_tiers(
    boxes: list[Box],
    links: list[Link],
    document: Endpoints,
    tallies: Mapping[str, Tally],
    whole: Tally,
    size: int | None,
) -> None:
    """What no node of the fleet is: tiers inside the application's processes, and servers of other people."""
    hosts = [box for box in boxes if box.tier == "application"]
    if not any(box.tier == "database" for box in boxes):
        engine = document.database.engine
        figures = _query_figures(whole)
        if engine == "sqlite" and hosts:
            figures.append(Figure("size", size, "bytes"))
            boxes.append(_inside(hosts[0], "database", "Database", ENGINES[engine], figures))
        elif engine == "postgres":
            boxes.append(Box("database", "database", "Database", "PostgreSQL of your own", "ready", figures))
            links += [Link(host.id, "database", _queries(tallies.get(host.id))) for host in hosts]
    for host in hosts:
        tally = tallies.get(host.id, Tally())
        if document.cache.engine == "memory":
            figures = [Figure("hits", tally.hit_share, "share")]
            boxes.append(_inside(host, "cache", "Cache", ENGINES["memory"], figures))
        if document.queue.workers:
            done = sum(tally.tasks.values()) / tally.seconds if tally.seconds else 0.0
            figures = [Figure("tasks", done, "rate")]
            detail = f"{document.queue.workers} workers"
            boxes.append(_inside(host, "queue", "Queue", detail, figures))


def _inside(host: Box, tier: str, title: str, detail: str, figures: list[Figure]) -> Box:
    return Box(f"{host.id}/{tier}", tier, title, detail, host.state, figures, inside=host.id)


def _query_figures(whole: Tally) -> list[Figure]:
    return [
        Figure("queries", _queries(whole), "rate"),
        Figure("p99", _ms(whole.queries.quantile(0.99)), "ms"),
    ]


def _queries(tally: Tally | None) -> float | None:
    return tally.queries.count / tally.seconds if tally is not None and tally.seconds else None


def _rate(tally: Tally | None, whole: Tally) -> float | None:
    return (tally or whole).rate


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000

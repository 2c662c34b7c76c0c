"""What the keys must mean together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from os.path import normpath
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from outgrow.errors import Problem
from outgrow.topology.complete import (
    PLAIN,
    STATE,
    cache_of,
    has_balancer,
    is_postgres,
    layer_of,
    replicas_of,
    sessions_of,
)
from outgrow.topology.model import STAGES, Topology
from outgrow.topology.wording import nearest

RESERVED = ("postgres", "template0", "template1", "outgrow_admin", "public", "none")
"""Names that a PostgreSQL server, or the fleet, already has for a role or a database."""

POOL = "app"
"""Where every server is that no other pool has."""

NO_POOL = "is not a pool"
SYNC_TIMEOUT_MIN = 1.0

POOL_HOSTS = 120
"""Emulated hosts for the servers of all pools beside "app"; each pool has an equal part of them."""

_POSTGRES_EXAMPLE = "postgresql://NAME:${PASSWORD}@HOST/DATABASE"
_REDIS_EXAMPLE = "rediss://NAME:${PASSWORD}@HOST:6379/0"

Given = Set[str]


class Rule(NamedTuple):
    """A contradiction between keys. It is told at the first of them, and only if each is right by itself."""

    keys: tuple[str, ...]
    broken: Callable[[Topology, Given], bool]
    message: str
    hint: str


def contradictions(topology: Topology, given: Given, wrong: Given) -> list[Problem]:
    """Every rule that is broken. `given` holds the paths that the file has, `wrong` those already told."""
    broken = [
        Problem(rule.keys[0], rule.message, hint=rule.hint)
        for rule in RULES
        if wrong.isdisjoint(rule.keys) and rule.broken(topology, given)
    ]
    complete_routes = not any(path.startswith(("balancer.routes", "balancer.pools")) for path in wrong)
    return [*broken, *_astray(topology)] if complete_routes else broken


def _astray(topology: Topology) -> Iterator[Problem]:
    """Routes to a pool that is none."""
    pools = (POOL, *topology.balancer.pools)
    for number, route in enumerate(topology.balancer.routes, 1):
        if route.pool not in pools:
            hint = nearest(route.pool, pools) or f"write {route.pool} = 1 under [balancer.pools]"
            yield Problem(f"balancer.routes.{number}.pool", NO_POOL, hint=hint)


def warnings(topology: Topology) -> list[Problem]:
    """What is allowed and seldom meant."""
    return [
        Problem(rule.keys[0], rule.message, hint=rule.hint)
        for rule in WARNINGS
        if rule.broken(topology, frozenset())
    ]


def _inside_state(directory: str | None) -> bool:
    return directory is not None and STATE in PurePath(normpath(directory)).parts


def _says(engine: str, topology: Topology, given: Given) -> bool:
    return "database.engine" in given and topology.database.engine == engine


def _is_readable(url: str | None) -> bool:
    try:
        urlsplit(url or "")
    except ValueError:  # no address between the brackets, or signs that only look like others
        return False
    return True


def _has_password_parameter(url: str | None) -> bool:
    parameters = parse_qsl((url or "").partition("?")[2])
    return any(name in ("password", "sslpassword") for name, _ in parameters)


def _url_rules(section: str, key: str, example: str) -> tuple[Rule, ...]:
    def url(topology: Topology) -> str | None:
        found: str | None = getattr(getattr(topology, section), key)
        return found

    return (
        Rule(
            (f"{section}.{key}",),
            lambda topology, given: not _is_readable(url(topology)),
            "names no host",
            "write its name or its address, an IPv6 address in brackets",
        ),
        Rule(
            (f"{section}.{key}",),
            lambda topology, given: _has_password_parameter(url(topology)),
            "a password cannot be a parameter of the URL",
            f"write it before the host: {example}",
        ),
    )


def _fleets_own(*keys: str) -> tuple[Rule, ...]:
    """What is said of the Redis that the fleet runs for the cache."""
    return tuple(
        Rule(
            (f"cache.{key}", "cache.url"),
            lambda topology, given, key=key: f"cache.{key}" in given and topology.cache.url is not None,  # type: ignore[misc]
            "contradicts cache.url",
            "with a url Outgrow starts no server: say it there",
        )
        for key in keys
    )


RULES = (
    Rule(
        ("application.servers", "database.url", "stage"),
        lambda topology, given: topology.application.count > 1 and not is_postgres(topology),
        "more than one server needs PostgreSQL: a SQLite file is on one machine",
        'write stage = "load-balancer"; the running fleet goes there with `outgrow grow`, stage by stage',
    ),
    Rule(
        ("application.servers", "balancer.engine", "stage"),
        lambda topology, given: (
            topology.application.count > 1 and is_postgres(topology) and not has_balancer(topology)
        ),
        "more than one server needs a balancer before them",
        f'write stage = "{PLAIN}" or further, or engine = "envoy" under [balancer]; '
        f"the running fleet goes there with `outgrow grow {PLAIN}`",
    ),
    Rule(
        ("balancer.layer", "stage"),
        lambda topology, given: (
            "balancer.layer" in given and topology.balancer.layer == 7 and topology.stage == PLAIN
        ),
        f'at stage "{PLAIN}" the balancer is of layer 4',
        'remove the line, or write stage = "load-balancer"',
    ),
    Rule(
        ("balancer.pools", "application.servers"),
        lambda topology, given: (
            max(topology.balancer.pools.values(), default=0) * len(topology.balancer.pools) > POOL_HOSTS
        ),
        f"one machine has emulated hosts for {POOL_HOSTS} servers of pools, an equal part for each pool",
        "make the pools smaller, or fewer",
    ),
    Rule(
        ("balancer.pools.balancer", "balancer.pools"),
        lambda topology, given: "balancer" in topology.balancer.pools,
        "is what the balancers themselves are called",
        "choose another name",
    ),
    Rule(
        ("application.name",),
        lambda topology, given: (
            topology.application.name in RESERVED or topology.application.name.startswith("pg_")
        ),
        "is a name that the database server keeps for itself",
        "choose another: the application's role and database get this name",
    ),
    Rule(
        ("database.engine", "database.url", "stage"),
        lambda topology, given: _says("postgres", topology, given) and not is_postgres(topology),
        f'at stage "{STAGES[0]}" the database is SQLite',
        f'write stage = "{STAGES[1]}", or give the url of a PostgreSQL of your own',
    ),
    Rule(
        ("database.engine", "database.url", "stage"),
        lambda topology, given: _says("sqlite", topology, given) and is_postgres(topology),
        f'with a url, and from stage "{STAGES[1]}" on, the database is PostgreSQL',
        "remove the line: stage and url choose the engine",
    ),
    Rule(
        ("database.file", "database.url", "stage"),
        lambda topology, given: topology.database.file is not None and is_postgres(topology),
        "is for SQLite, and this database is PostgreSQL",
        "remove it",
    ),
    Rule(
        ("database.migrations_url", "database.url"),
        lambda topology, given: bool(topology.database.migrations_url) and not topology.database.url,
        "needs database.url",
        "the fleet's own database has its own roles",
    ),
    Rule(
        ("database.replica_urls", "database.url"),
        lambda topology, given: bool(topology.database.replica_urls) and not topology.database.url,
        "need database.url",
        "they are replicas of the database there",
    ),
    Rule(
        ("database.replica_urls",),
        lambda topology, given: not all(map(_is_readable, topology.database.replica_urls)),
        "one of them names no host",
        "write its name or its address, an IPv6 address in brackets",
    ),
    Rule(
        ("database.replica_urls",),
        lambda topology, given: any(map(_has_password_parameter, topology.database.replica_urls)),
        "a password cannot be a parameter of a URL",
        f"write it before the host: {_POSTGRES_EXAMPLE}",
    ),
    Rule(
        ("database.replica_urls", "database.url"),
        lambda topology, given: (
            len({*topology.database.replica_urls, topology.database.url})
            <= len(topology.database.replica_urls)
        ),
        "name a server twice",
        "each is a server of its own, and none is that of url",
    ),
    Rule(
        ("database.programs", "database.url"),
        lambda topology, given: bool(topology.database.programs and topology.database.url),
        "contradicts database.url",
        "with a url Outgrow starts no server",
    ),
    Rule(
        ("database.pooler", "database.url", "database.migrations_url"),
        lambda topology, given: (
            topology.database.pooler == "pgbouncer"
            and bool(topology.database.url)
            and not topology.database.migrations_url
        ),
        "needs migrations_url beside url",
        "migrations hold a lock longer than a transaction: give them the database itself, not the pooler",
    ),
    Rule(
        ("database.replicas", "database.url", "stage"),
        lambda topology, given: topology.database.copies > 0 and not is_postgres(topology),
        "need PostgreSQL: a SQLite file has no copies",
        'write stage = "replication"; the running fleet goes there with `outgrow grow`, stage by stage',
    ),
    Rule(
        ("database.replicas", "database.url"),
        lambda topology, given: topology.database.copies > 0 and topology.database.url is not None,
        "contradicts database.url",
        "with a url Outgrow starts no server: name replicas of your own in replica_urls",
    ),
    Rule(
        ("database.pooler", "database.replicas"),
        lambda topology, given: replicas_of(topology) > 0 and topology.database.pooler == "pgbouncer",
        "does not go with replicas",
        "remove the pooler: processes then get as many connections as each node has room for",
    ),
    Rule(
        ("database.replication", "database.replicas", "stage"),
        lambda topology, given: (
            topology.database.replication != "async"
            and is_postgres(topology)
            and not replicas_of(topology)
            and not topology.database.replica_urls
        ),
        "needs a replica that confirms",
        'write replicas = 2 beside it, or replication = "async"',
    ),
    Rule(
        ("database.replication", "database.url", "stage"),
        lambda topology, given: topology.database.replication != "async" and not is_postgres(topology),
        "needs PostgreSQL with replicas",
        'write stage = "replication", or replication = "async"',
    ),
    Rule(
        ("database.sync_strict", "database.replication"),
        lambda topology, given: topology.database.sync_strict and topology.database.replication == "async",
        'needs replication = "sync" or "semi-sync"',
        "with async nobody waits for a replica",
    ),
    Rule(
        ("database.sync_timeout", "database.replication"),
        lambda topology, given: (
            topology.database.sync_timeout < SYNC_TIMEOUT_MIN and topology.database.replication != "async"
        ),
        f"is at least {SYNC_TIMEOUT_MIN:g} s",
        "a replica that is only busy for a moment would be given up",
    ),
    Rule(
        ("dashboard.port", "application.port"),
        lambda topology, given: topology.dashboard.port == topology.application.port,
        "is the application's own port",
        "choose another, or remove the line: then it is the application's plus 1000",
    ),
    Rule(
        ("balancer.pools.app", "balancer.pools"),
        lambda topology, given: POOL in topology.balancer.pools,
        "is the pool of all servers that no other pool has",
        "remove it, or choose another name",
    ),
    Rule(
        ("balancer.routes", "balancer.layer"),
        lambda topology, given: bool(topology.balancer.routes) and layer_of(topology) == 4,
        "need layer = 7",
        "at layer 4 nobody reads the requests",
    ),
    Rule(
        ("balancer.limits.rate", "balancer.layer"),
        lambda topology, given: topology.balancer.limits.rate is not None and layer_of(topology) == 4,
        "needs layer = 7",
        "at layer 4 nobody reads the requests",
    ),
    Rule(
        ("balancer.algorithm", "balancer.layer"),
        lambda topology, given: (
            topology.balancer.algorithm == "least-response-time" and layer_of(topology) == 4
        ),
        "least-response-time needs layer = 7",
        'at layer 4 nobody sees responses: "least-connections" is the nearest',
    ),
    Rule(
        ("balancer.limits.burst", "balancer.limits.rate"),
        lambda topology, given: (
            topology.balancer.limits.burst is not None and topology.balancer.limits.rate is None
        ),
        "needs rate",
        "write rate beside it, in requests a second",
    ),
    Rule(
        ("balancer.tls.certificate", "balancer.tls.key"),
        lambda topology, given: (
            (topology.balancer.tls.certificate is None) != (topology.balancer.tls.key is None)
        ),
        "needs its other half",
        "write certificate and key, or neither: then both are made",
    ),
    Rule(
        ("balancer.tls.enabled", "balancer.tls.certificate"),
        lambda topology, given: (
            topology.balancer.tls.certificate is not None and not topology.balancer.tls.enabled
        ),
        "must be true for a certificate to be used",
        "write enabled = true, or remove certificate and key",
    ),
    Rule(
        ("balancer.attempt_timeout", "balancer.request_timeout"),
        lambda topology, given: topology.balancer.attempt_timeout > topology.balancer.request_timeout,
        "is longer than request_timeout",
        "one request has several attempts: make it shorter",
    ),
    Rule(
        ("autoscale.minimum", "autoscale.maximum"),
        lambda topology, given: topology.autoscale.minimum > topology.autoscale.maximum,
        "is more than maximum",
        "make it smaller",
    ),
    Rule(
        ("backup.directory",),
        lambda topology, given: _inside_state(topology.backup.directory),
        "lies with the data, and would be lost with it",
        "name a folder outside of .outgrow, best on another disk",
    ),
    Rule(
        ("backup.mirror", "backup.directory"),
        lambda topology, given: bool(topology.backup.mirror and not topology.backup.directory),
        "is that of a directory",
        "write directory, too: what is streamed is there at once, and in the store within seconds",
    ),
    Rule(
        ("backup.directory", "database.url"),
        lambda topology, given: bool(topology.backup.directory and topology.database.url),
        "is for a PostgreSQL that the fleet runs",
        "remove it: whoever runs the database at database.url backs it up",
    ),
    Rule(
        ("cache.url", "cache.engine"),
        lambda topology, given: bool(topology.cache.url) and cache_of(topology) != "redis",
        'is for engine = "redis"',
        "remove it, or change the engine",
    ),
    *_fleets_own("memory_mb", "eviction", "nodes"),
    Rule(
        ("cache.more_urls", "cache.url"),
        lambda topology, given: bool(topology.cache.more_urls) and not topology.cache.url,
        "are further nodes beside that of cache.url",
        "write url, the first node, too; `nodes` is for those that the fleet runs",
    ),
    Rule(
        ("cache.more_urls", "cache.url"),
        lambda topology, given: (
            len({*topology.cache.more_urls, topology.cache.url}) <= len(topology.cache.more_urls)
        ),
        "names a node twice",
        "name each node once",
    ),
    Rule(
        ("cache.more_urls",),
        lambda topology, given: any(map(_has_password_parameter, topology.cache.more_urls)),
        "a password cannot be a parameter of the URL",
        "write it before the host: rediss://user:password@host:6379/0",
    ),
    Rule(
        ("cache.follow_changes", "cache.engine", "stage"),
        lambda topology, given: bool(topology.cache.follow_changes) and cache_of(topology) != "redis",
        "needs a cache that all processes share",
        'write engine = "redis" beside it, or `outgrow grow cache` first: a cache in memory hears of no '
        "other process's changes either",
    ),
    Rule(
        ("cache.follow_changes", "database.url", "stage"),
        lambda topology, given: bool(topology.cache.follow_changes) and not is_postgres(topology),
        "needs PostgreSQL: SQLite tells nobody what has changed",
        f'write stage = "{STAGES[1]}" or further, or remove the line',
    ),
    Rule(
        ("cache.follow_changes", "database.url", "cache.changes_url"),
        lambda topology, given: (
            bool(topology.cache.follow_changes)
            and bool(topology.database.url)
            and not topology.cache.changes_url
        ),
        "needs changes_url beside it",
        "a role there that reads the log: CREATE ROLE NAME LOGIN REPLICATION PASSWORD '...'; docs/cache.md "
        "has the rest, and `outgrow doctor` looks whether it will do",
    ),
    Rule(
        ("cache.changes_url", "database.url"),
        lambda topology, given: bool(topology.cache.changes_url) and not topology.database.url,
        "needs database.url",
        "the fleet's own database has a role for that",
    ),
    Rule(
        ("cache.changes_url", "cache.follow_changes"),
        lambda topology, given: bool(topology.cache.changes_url) and not topology.cache.follow_changes,
        "needs follow_changes",
        'name the tables: follow_changes = ["articles"]',
    ),
    Rule(
        ("sessions.url", "sessions.engine"),
        lambda topology, given: bool(topology.sessions.url) and sessions_of(topology) != "redis",
        'is for engine = "redis"',
        "remove it, or change the engine",
    ),
    Rule(
        ("sessions.same_site", "sessions.secure"),
        lambda topology, given: (
            topology.sessions.same_site == "none" and topology.sessions.secure != "always"
        ),
        'needs secure = "always": without it browsers refuse the cookie',
        'write secure = "always", or same_site = "lax"',
    ),
    Rule(
        ("sessions.cookie", "sessions.secure"),
        lambda topology, given: (
            topology.sessions.cookie.lower().startswith(("__host-", "__secure-"))
            and topology.sessions.secure != "always"
        ),
        'needs secure = "always": without it browsers refuse a cookie of this name',
        'write secure = "always", or choose a name without that beginning',
    ),
    *_url_rules("database", "url", _POSTGRES_EXAMPLE),
    *_url_rules("database", "migrations_url", _POSTGRES_EXAMPLE),
    *_url_rules("sessions", "url", _REDIS_EXAMPLE),
    *_url_rules("cache", "url", _REDIS_EXAMPLE),
    *_url_rules("cache", "changes_url", _POSTGRES_EXAMPLE),
)

WARNINGS = (
    Rule(
        ("backup.directory", "stage"),
        lambda topology, given: topology.backup.directory is not None and not is_postgres(topology),
        "backups are of PostgreSQL, and this database is a SQLite file",
        'write stage = "separate-database", or copy the file yourself: docs/backups.md says how',
    ),
    Rule(
        ("database.sync_strict", "database.replicas"),
        lambda topology, given: topology.database.sync_strict and topology.database.replicas == 1,
        "with one replica and sync_strict, the loss of either node stops all writes",
        "write replicas = 2 under [database]",
    ),
    Rule(
        ("sessions.engine", "application.servers", "application.workers", "balancer.pools"),
        lambda topology, given: topology.sessions.engine == "memory" and topology.processes > 1,
        "with several servers or workers, sessions in memory end with their process and no other knows them",
        'write engine = "redis" or "database" under [sessions]',
    ),
    Rule(
        ("cache.engine", "application.servers", "application.workers", "balancer.pools"),
        lambda topology, given: topology.cache.engine == "memory" and topology.processes > 1,
        "with several servers or workers each has a cache of its own, which hears of no other's writes: it "
        "serves those who have no session, and sessions read from the database",
        'write engine = "redis" under [cache], or `outgrow grow cache`: a shared cache serves all',
    ),
)
"""Told by `outgrow up` and `outgrow status`; nothing is refused because of them."""

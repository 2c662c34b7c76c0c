"""What outgrow.toml says, as immutable values.

Every field is a key of the file: its type is what the parser accepts, and `Meta` holds the bounds
and the sentence that the JSON Schema shows. topology/reference.toml documents the same keys at length.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from outgrow.topology.values import (
    ApplicationName,
    Busy,
    Consistency,
    CookieName,
    Cores,
    Duration,
    HeaderMatch,
    HostName,
    HttpUrl,
    ImportName,
    Lifetime,
    Method,
    PathPrefix,
    PoolName,
    Port,
    PostgresUrl,
    RedisUrl,
    ReplicaCount,
    RequestPath,
    Requests,
    Secret,
    ServerCount,
    ServerName,
    TableName,
    Text,
    Turns,
    UnderWay,
    VariableName,
    Weight,
)

STAGES = (
    "single-server",
    "separate-database",
    "scale-out",
    "load-balancer",
    "replication",
    "cache",
    "cdn",
    "stateless",
    "multi-dc",
    "queue",
    "sharding",
)
"""The ladder, in order: stage 1 is STAGES[0]. stages/ has a file for each."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file. It may be printed and logged: its repr hides what is secret."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, without_secrets(name, getattr(self, name))) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


class Application(Section, frozen=True):
    """[application]"""

    name: Annotated[ApplicationName, Meta(description="short name; also the database's and its role's")] = (
        "app"
    )
    app: Annotated[ImportName, Meta(description="the ASGI application, module:attribute")] = "app:app"
    migrations: Annotated[Text | None, Meta(description="folder with Alembic revisions in versions/")] = None
    seed: Annotated[ImportName | None, Meta(description="what `outgrow seed` runs, module:function")] = None
    host: Annotated[Text, Meta(description="address to listen on; loopback unless you say otherwise")] = (
        "127.0.0.1"
    )
    port: Annotated[Port, Meta(description="port to listen on")] = 8000
    servers: Annotated[
        ServerCount | None,
        Meta(description="application servers, each a host of its own; by default 1, or 2 from stage 3 on"),
    ] = None
    workers: Annotated[int, Meta(ge=1, le=64, description="processes on each application server")] = 1
    cpu: Annotated[
        Cores | None, Meta(description="cores of each application server; by default fleet.host_cpu")
    ] = None
    warm_up: Annotated[
        tuple[RequestPath, ...],
        Meta(description="what a process asks of itself before it takes the first request of anybody else"),
    ] = ()
    consistency: Annotated[Consistency, Meta(description="how fresh reads are by default")] = "session"
    secret: Annotated[
        Secret | None, Meta(description="every signing key derives from it; the fleet makes one")
    ] = None
    environment: Annotated[
        dict[VariableName, str], Meta(description="variables for the application's processes")
    ] = {}

    @property
    def count(self) -> int:
        """How many servers the pool of the application has."""
        return self.servers or 1


class Database(Section, frozen=True):
    """[database]"""

    engine: Annotated[Literal["sqlite", "postgres"], Meta(description="the stage chooses it")] = "sqlite"
    file: Annotated[Text | None, Meta(description="SQLite's file; by default .outgrow/data/NAME.db")] = None
    url: Annotated[
        PostgresUrl | None,
        Meta(description='a PostgreSQL of your own; in its password write %2F for "/", %40 for "@"'),
    ] = None
    migrations_url: Annotated[
        PostgresUrl | None, Meta(description="the same database, as a role that may create tables")
    ] = None
    replica_urls: Annotated[
        tuple[PostgresUrl, ...], Meta(description="replicas of the database at url, of your own")
    ] = ()
    programs: Annotated[
        Text | None,
        Meta(description="folder of a PostgreSQL installation to run instead of the packaged one"),
    ] = None
    pool: Annotated[int, Meta(ge=1, le=1000, description="connections of each process")] = 10
    pooler: Annotated[
        Literal["auto", "pgbouncer", "off"],
        Meta(description="what shares connections between processes; auto: PgBouncer from 101 on"),
    ] = "auto"
    statement_timeout: Annotated[Duration, Meta(description="a statement that runs longer is cancelled")] = (
        30.0
    )
    checkout_timeout: Annotated[Duration, Meta(description="how long a block waits for a connection")] = 5.0
    durability: Annotated[
        Literal["full", "normal"], Meta(description="full: a commit survives a power cut")
    ] = "full"
    max_lag: Annotated[Duration, Meta(description="a replica that is further behind gets no reads")] = 5.0
    replicas: Annotated[
        ReplicaCount | None, Meta(description="copies that serve reads; by default 2 from stage 5 on, else 0")
    ] = None
    replication: Annotated[
        Literal["async", "semi-sync", "sync"],
        Meta(description="who has a commit before it returns: the primary; a replica, too; every replica"),
    ] = "async"
    sync_timeout: Annotated[
        Duration, Meta(description="how long a commit waits for a replica that does not answer")
    ] = 5.0
    sync_strict: Annotated[
        bool, Meta(description="whether a write fails then, instead of going on without the replica")
    ] = False

    @property
    def copies(self) -> int:
        """How many replicas there are."""
        return self.replicas or 0


class Cache(Section, frozen=True):
    """[cache]"""

    engine: Annotated[
        Literal["memory", "redis", "off"] | None,
        Meta(description='in each process, or shared; by default "memory", or "redis" from stage 6 on'),
    ] = None
    url: Annotated[
        RedisUrl | None,
        Meta(description='a Redis of your own; in its password write %2F for "/", %40 for "@"'),
    ] = None
    more_urls: Annotated[
        tuple[RedisUrl, ...],
        Meta(max_length=15, description="further nodes of your own, over which keys are spread"),
    ] = ()
    nodes: Annotated[
        int, Meta(ge=1, le=6, description="servers that the fleet runs, over which keys are spread")
    ] = 1
    entries: Annotated[int, Meta(ge=1, le=100_000_000, description="entries that a process keeps")] = 10_000
    entries_mb: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="megabytes that they may take, about")] | None
    ) = None
    memory_mb: Annotated[
        int, Meta(ge=1, le=1_000_000, description="megabytes of each Redis that the fleet runs")
    ] = 128
    eviction: Annotated[
        Literal["lru", "lfu", "random", "fifo"],
        Meta(description="what a process, and that Redis, lets go of when it is full"),
    ] = "lru"
    loads: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=10_000,
                description="loads that a process runs at once; by default three quarters of database.pool",
            ),
        ]
        | None
    ) = None
    unheard: Annotated[
        Duration,
        Meta(description="how long an entry may live where other processes' writes are not heard of"),
    ] = 60.0
    follow_changes: Annotated[
        tuple[TableName, ...],
        Meta(description="tables whose changes it hears of, whoever changes them; needs a shared cache"),
    ] = ()
    changes_url: Annotated[
        PostgresUrl | None,
        Meta(description="the database at database.url, as a role with REPLICATION that reads changes"),
    ] = None


class Queue(Section, frozen=True):
    """[queue]"""

    engine: Annotated[Literal["database"], Meta(description="a table in the application's database")] = (
        "database"
    )
    workers: Annotated[
        int, Meta(ge=0, le=1000, description="messages a process works on at once; 0: none")
    ] = 4


class Sessions(Section, frozen=True):
    """[sessions]"""

    engine: Annotated[
        Literal["off", "memory", "database", "redis"] | None,
        Meta(description='where request.session is kept; by default "off", or "redis" from stage 8 on'),
    ] = None
    url: Annotated[
        RedisUrl | None,
        Meta(description='a Redis of your own; in its password write %2F for "/", %40 for "@"'),
    ] = None
    idle_timeout: Annotated[Lifetime, Meta(description="a session that nobody uses ends after it")] = 86_400.0
    lifetime: Annotated[Lifetime, Meta(description="a session ends after it, however much it is used")] = (
        1_209_600.0
    )
    size: Annotated[
        int, Meta(ge=64, le=1_048_576, description="bytes that one session may hold, as JSON")
    ] = 16_384
    cookie: Annotated[CookieName, Meta(description="name of the cookie that holds its signed id")] = (
        "outgrow_session"
    )
    secure: Annotated[
        Literal["auto", "always"],
        Meta(description="whether the cookie is for https alone; auto: if set on it"),
    ] = "auto"
    same_site: Annotated[
        Literal["lax", "strict", "none"], Meta(description="when other sites' pages may send the cookie")
    ] = "lax"


class Telemetry(Section, frozen=True):
    """[telemetry]"""

    metrics: Annotated[Literal["local", "public", "off"], Meta(description="who may read /metrics")] = "local"
    access_log: Annotated[bool, Meta(description="one JSON line for each request")] = True
    otlp_endpoint: Annotated[
        HttpUrl | None,
        Meta(description="OpenTelemetry collector, credentials go into OTEL_EXPORTER_OTLP_HEADERS"),
    ] = None
    trace_sample: Annotated[
        float, Meta(ge=0, le=1, description="share of the requests that are traced; errors always are")
    ] = 0.01


class Dashboard(Section, frozen=True):
    """[dashboard]"""

    enabled: Annotated[bool, Meta(description="whether the fleet has a dashboard")] = True
    port: Annotated[
        Port | None, Meta(description="its port on 127.0.0.1; by default the application's plus 1000")
    ] = None
    actions: Annotated[
        bool, Meta(description="whether its page may change the fleet, for the user who runs it")
    ] = True


class Fleet(Section, frozen=True):
    """[fleet]"""

    host_cpu: Annotated[
        Cores | None, Meta(description="cores of every emulated host; by default no limit")
    ] = None


class Autoscale(Section, frozen=True):
    """[autoscale]"""

    minimum: Annotated[ServerCount, Meta(description="servers that there are at least")] = 1
    maximum: Annotated[ServerCount, Meta(description="servers that there are at most")] = 10
    cpu: Annotated[Busy | None, Meta(description="target: the share of its cores that a server uses")] = None
    in_flight: Annotated[UnderWay | None, Meta(description="target: requests under way in a server")] = None
    p95: Annotated[Duration | None, Meta(description="target: 95 of 100 requests take less")] = None
    tolerance: Annotated[
        float, Meta(ge=0, le=1, description="so far from its target a figure changes nothing")
    ] = 0.1
    out_window: Annotated[
        Duration | None, Meta(description="more are wanted for so long before servers come")
    ] = None
    in_window: Annotated[Duration, Meta(description="fewer are wanted for so long before servers go")] = 300.0
    cool_down: Annotated[Duration, Meta(description="the time for one step")] = 15.0
    step: Annotated[ServerCount, Meta(description="servers that come or go within a cool-down")] = 4

    @property
    def on(self) -> bool:
        """Whether anything is to be reached."""
        return any(target is not None for target in (self.cpu, self.in_flight, self.p95))


class Deploy(Section, frozen=True):
    """[deploy]"""

    watch: Annotated[Duration, Meta(description="how long the first new server is watched")] = 10.0
    errors: Annotated[
        float, Meta(ge=0, le=1, description="share of answers from 500 on that is too many")
    ] = 0.02
    slower: Annotated[
        float, Meta(ge=1, le=1000, description="so many times slower than the old version is too slow")
    ] = 4.0


class Backup(Section, frozen=True):
    """[backup]"""

    directory: Annotated[Text | None, Meta(description="where backups of PostgreSQL are kept")] = None
    mirror: (
        Annotated[
            str,
            Meta(
                pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[\w./-]*)?$(?!\n)",
                description="a store that has them once more: s3://BUCKET/PREFIX",
            ),
        ]
        | None
    ) = None
    every: Annotated[Lifetime, Meta(description="how often the whole database is copied")] = 86_400.0
    keep: Annotated[Lifetime, Meta(description="how far back every moment can be restored")] = 604_800.0
    behind: Annotated[Duration, Meta(description="an archive that is so far behind is told of")] = 60.0


class Health(Section, frozen=True):
    """[balancer.health]"""

    check: Annotated[
        Literal["deep", "shallow"], Meta(description="deep: what the server depends on answers, too")
    ] = "deep"
    profile: Annotated[
        Literal["usual", "fast"],
        Meta(description="usual: every 10 s, out after 3 failures; fast: out within 2 s"),
    ] = "usual"
    path: Annotated[PathPrefix | None, Meta(description="what is asked; by default Outgrow's own")] = None
    interval: Annotated[Duration | None, Meta(description="how often each server is asked")] = None
    timeout: Annotated[Duration | None, Meta(description="how long it has to answer")] = None
    failures: Annotated[Turns | None, Meta(description="out after so many in a row")] = None
    successes: Annotated[Turns | None, Meta(description="in after so many in a row")] = None
    panic: Annotated[
        float,
        Meta(ge=0, le=1, description="when fewer than this share are healthy, health does not count"),
    ] = 0.1
    slow_start: Annotated[Duration | None, Meta(description="how long a new server gets less")] = None


class Limits(Section, frozen=True):
    """[balancer.limits]"""

    rate: Annotated[Requests | None, Meta(description="requests a second from one client address")] = None
    burst: Annotated[Requests | None, Meta(description="requests at once before the rate holds")] = None
    body_mb: Annotated[float, Meta(ge=0.001, le=4_000, description="largest body of a request")] = 10.0
    under_way: Annotated[Requests, Meta(description="requests under way in a pool; more get 503 at once")] = (
        1024
    )


class Tls(Section, frozen=True):
    """[balancer.tls]"""

    enabled: Annotated[bool, Meta(description="HTTPS, and HTTP/2 for clients that ask for it")] = False
    certificate: Annotated[Text | None, Meta(description="file with the chain, PEM; else one is made")] = None
    key: Annotated[Text | None, Meta(description="file with its key, PEM")] = None


class Route(Section, frozen=True):
    """[[balancer.routes]]"""

    pool: Annotated[PoolName, Meta(description="the pool that serves it")] = "app"
    prefix: Annotated[PathPrefix, Meta(description="what the path begins with")] = "/"
    host: Annotated[HostName | None, Meta(description="the host asked for; *.NAME: any below it")] = None
    header: Annotated[HeaderMatch | None, Meta(description="a header that it has, or its value")] = None
    methods: Annotated[tuple[Method, ...], Meta(description="its methods; none named: all")] = ()


class Balancer(Section, frozen=True):
    """[balancer]"""

    engine: Annotated[Literal["envoy"] | None, Meta(description="the stage chooses it")] = None
    layer: Annotated[Literal[7, 4], Meta(description="7: HTTP; 4: TCP")] = 7
    algorithm: Annotated[
        Literal["round-robin", "weighted-round-robin", "least-connections", "ip-hash", "least-response-time"],
        Meta(description="how a server is chosen"),
    ] = "round-robin"
    copies: Annotated[Literal[1, 2], Meta(description="2: with a standby")] = 1
    connect_timeout: Annotated[Duration, Meta(description="to reach a server")] = 1.0
    attempt_timeout: Annotated[
        Duration, Meta(description="a safe request without an answer goes to another server after this")
    ] = 10.0
    request_timeout: Annotated[
        Duration, Meta(description="a request without an answer gets 504 after this")
    ] = 30.0
    idle_timeout: Annotated[
        Duration, Meta(description="a connection on which nothing moves is closed after this")
    ] = 60.0
    retries: Annotated[int, Meta(ge=0, le=10, description="further attempts of a safe request")] = 2
    retry_share: Annotated[
        float, Meta(ge=0, le=1, description="attempts that repeat, of the requests under way")
    ] = 0.5
    health: Health = Health()
    limits: Limits = Limits()
    tls: Tls = Tls()
    weights: Annotated[
        dict[ServerName, Weight], Meta(description="of servers, for weighted-round-robin; else 1")
    ] = {}
    pools: Annotated[
        dict[PoolName, ServerCount],
        Meta(description="further pools, and how many servers each has"),
    ] = {}
    routes: Annotated[
        tuple[Route, ...], Meta(description="which requests go to which pool; the first that fits counts")
    ] = ()


class Topology(Section, frozen=True):
    """The whole file. Two topologies are equal when they mean the same."""

    stage: Annotated[str, Meta(description="the stage of the ladder: a name or a number")] = STAGES[0]
    application: Application = Application()
    database: Database = Database()
    cache: Cache = Cache()
    queue: Queue = Queue()
    sessions: Sessions = Sessions()
    telemetry: Telemetry = Telemetry()
    dashboard: Dashboard = Dashboard()
    fleet: Fleet = Fleet()
    balancer: Balancer = Balancer()
    autoscale: Autoscale = Autoscale()
    deploy: Deploy = Deploy()
    backup: Backup = Backup()

    @property
    def processes(self) -> int:
        """How many processes run the application."""
        return (self.application.count + sum(self.balancer.pools.values())) * self.application.workers

    def with_port(self, port: int) -> Topology:
        """The same, listening on another port."""
        application = msgspec.structs.replace(self.application, port=port)
        return msgspec.structs.replace(self, application=application)


HIDDEN = "***"


def may_be_shown(path: str) -> bool:
    """Whether the value of this key is no secret and holds none."""
    *tables, key = path.split(".")
    if key.isdecimal():
        key = tables.pop()  # an element of an array is named by its number
    hidden = key in ("secret", "environment") or "environment" in tables
    return not (hidden or key.endswith(("url", "urls")))


def without_secrets(path: str, value: Any) -> Any:
    """The value of this key as it may be shown: of a URL all but the password."""
    if value is None or may_be_shown(path):
        return value
    if isinstance(value, dict):
        return dict.fromkeys(value, HIDDEN)
    if isinstance(value, tuple):
        return tuple(without_secrets(path, each) for each in value)
    return re.sub(r"(://[^:@]*):.*@", rf"\1:{HIDDEN}@", value) if "://" in value else HIDDEN

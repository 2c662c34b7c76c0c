"""WHERE everything is now, with an epoch: the document that joins the two halves.

The fleet publishes it (endpoints.json, replaced atomically, never holding a secret); every
application process reads it. Without a fleet the same document is derived from the URLs in
outgrow.toml, so a team with managed servers uses the library alone.

    OUTGROW_ENDPOINTS=path  ->  read(path)
    otherwise outgrow.toml  ->  from_topology(parse(...))       (see `discover`)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from outgrow.errors import Misuse, StateUnreadable

if TYPE_CHECKING:
    from outgrow.topology.model import Topology

VERSION = 1

CONSISTENCY = r"^(?:strong|session|eventual|(?:bounded|pinned)\(\d{1,5}(?:\.\d{1,3})?(?:ms|s|m|h)\))$(?!\n)"
"""How fresh reads are: "strong", "session", "eventual", "bounded(2s)" or "pinned(5s)"."""

DATABASE = "db"
"""What the one node of a database is called."""

CHANGES = "_changes"
"""Ends the name of the role that reads what has changed in a database, and of its slot."""

T = TypeVar("T")


class Node(msgspec.Struct, frozen=True):
    """One database server. The URL carries no password.

    `role` is what it was when the document was written. What it is now the server itself says: after a
    failover the application follows without another document.
    `pooled`: at the URL is a pooler that gives each transaction, and not each client, a connection.
    """

    name: str
    url: str
    role: Literal["primary", "replica"] = "primary"
    pooled: bool = False


class Shard(msgspec.Struct, frozen=True):
    """One partition of the data: a primary and its replicas.

    `timeline` is added to that of every position. A move to another engine raises it, so that what
    a session has seen before the move is older than everything after it.
    """

    name: str
    nodes: Annotated[tuple[Node, ...], msgspec.Meta(min_length=1)]
    timeline: int = 0


class Database(msgspec.Struct, frozen=True):
    """The database tier. `pool` is connections per process and node; times in seconds.

    `replication` is how replicas follow the primary, and "none" where there are none. A replica that is
    more than `max_lag_s` behind gets no reads.
    """

    engine: Literal["sqlite", "postgres"]
    shards: Annotated[tuple[Shard, ...], msgspec.Meta(min_length=1)]
    pool: int = 10
    statement_timeout_s: float = 30.0
    checkout_timeout_s: float = 5.0
    durability: Literal["full", "normal"] = "full"
    replication: Literal["none", "async", "sync", "semi-sync"] = "none"
    max_lag_s: float = 5.0


class Cache(msgspec.Struct, frozen=True):
    """The cache tier. The URLs, of the store that all processes share, carry no password.

    `url` is that of its first node, `more_urls` those of the others, among which keys are spread (ring.py).
    `entries_max` is for each process, and so is `loads_max`, loads at once (None: what the database's pool
    bears). `several`: more than one process runs; with "memory" none hears what the others write, so there
    an entry lives for `unheard_s` at most.
    `changes_url` is the database as the role that reads what has changed there; with it the
    shared cache hears of it.
    """

    engine: Literal["memory", "redis", "off"] = "memory"
    url: str | None = None
    entries_max: int = 10_000
    bytes_max: int | None = None
    eviction: Literal["lru", "lfu", "random", "fifo"] = "lru"
    several: bool = False
    loads_max: int | None = None
    changes_url: str | None = None
    unheard_s: float = 60.0
    more_urls: tuple[str, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """Of all nodes."""
        return () if self.url is None else (self.url, *self.more_urls)


class Queue(msgspec.Struct, frozen=True):
    """The queue tier. `workers` is how many messages one process works on at once; 0 is none."""

    engine: Literal["database"] = "database"
    workers: int = 4


class SessionStore(msgspec.Struct, frozen=True):
    """A place for sessions. The URL carries no password."""

    engine: Literal["off", "memory", "database", "redis"]
    url: str | None = None


class Sessions(msgspec.Struct, frozen=True):
    """The tier of sessions. The URL carries no password; times in seconds.

    `also`: while they move, each of them may be there instead; new ones begin in the first.
    """

    engine: Literal["off", "memory", "database", "redis"] = "off"
    url: str | None = None
    also: SessionStore | None = None
    idle_timeout_s: float = 86_400.0
    lifetime_s: float = 1_209_600.0
    size_bytes_max: int = 16_384
    cookie: str = "outgrow_session"
    secure: Literal["auto", "always"] = "auto"
    same_site: Literal["lax", "strict", "none"] = "lax"


class Telemetry(msgspec.Struct, frozen=True):
    """What a process tells of itself, and to whom."""

    metrics: Literal["local", "public", "off"] = "local"
    access_log: bool = True
    otlp_endpoint: str | None = None
    trace_sample: float = 0.01


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document. A higher epoch replaces a lower one."""

    version: int = VERSION
    epoch: int = 1
    application: str
    stage: str
    consistency: Annotated[str, msgspec.Meta(pattern=CONSISTENCY)] = "session"
    database: Database
    cache: Cache = Cache()
    queue: Queue = Queue()
    sessions: Sessions = Sessions()
    telemetry: Telemetry = Telemetry()
    secrets_file: str | None = None
    moved: bool = False
    """A growing application brought its data here: what another engine has of it is of the past."""
    control: str | None = None
    """The folder where each process that has opened the tiers listens for the fleet (runtime/control.py)."""


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What must not be in the document: kept in a file of mode 0600 or taken from the environment.

    `application` is hex, at least 32 bytes: every signing key is derived from it.
    `passwords` maps a database node's name ("*" for any, "migrations" for the role that may create
    tables, "sessions" for the server of the sessions, "cache" for that of the cache, "cache-2" for its
    second node where that has another one, "changes" for the role that reads what has changed) to its
    password.
    """

    application: Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{2}){32,}$")]
    passwords: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Secrets(...)"


def read(path: str | os.PathLike[str]) -> Endpoints:
    """The document at `path`. Raises StateUnreadable when it is damaged, Misuse when it is missing."""
    document = _decode(path, Endpoints)
    if document.version != VERSION:
        raise StateUnreadable(
            f"{path} has version {document.version}, and this Outgrow reads version {VERSION}",
            hint="run the application and the fleet with the same version of Outgrow",
        )
    return document


def read_secrets(path: str | os.PathLike[str]) -> Secrets:
    """The secrets at `path`. Raises like `read`."""
    return _decode(path, Secrets)


def write(path: str | os.PathLike[str], document: Endpoints | Secrets) -> None:
    """Replace the file at `path` atomically, readable by its owner alone.

    Raises Misuse when a URL in an endpoints document holds a password.
    """
    if isinstance(document, Endpoints):
        _require_no_password(document)
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(document), indent=2))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def discover() -> tuple[Endpoints, Secrets]:
    """What this process is to work with, and its secrets.

    The document that OUTGROW_ENDPOINTS names, else outgrow.toml in the working directory or above it.
    Raises Misuse when there is neither, or when the file alone does not say enough to run without a
    fleet; TopologyError when it is wrong.
    """
    named = os.environ.get("OUTGROW_ENDPOINTS")
    if named:
        document = read(named)
        if document.secrets_file is None:
            raise StateUnreadable(f"{named} names no secrets_file", hint="start the fleet with `outgrow up`")
        return document, read_secrets(document.secrets_file)
    from outgrow.topology.parse import NAME, parse_file

    here = Path.cwd()
    found = next((place for place in (here, *here.parents) if (place / NAME).is_file()), None)
    if found is None:
        raise Misuse(
            f"no OUTGROW_ENDPOINTS in the environment, and no {NAME} in {here} or above it",
            hint="`outgrow up` sets it; `outgrow new DIR` makes an application to start from",
        )
    topology = parse_file(found / NAME)
    if topology.application.secret is None:
        raise Misuse(
            f"{found / NAME}: application.secret is missing, and without a fleet nobody makes one",
            hint='write secret = "${APP_SECRET}" under [application], and export at least 32 characters',
        )
    secrets = secrets_of(topology.application.secret, passwords_of(topology))
    return from_topology(topology, found), secrets


def split_password(url: str) -> tuple[str, str | None]:
    """The URL without its password, and the password as the server knows it; None where there is none."""
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = account.partition(":")
    if not colon:
        return url, None
    return urlunsplit(parts._replace(netloc=f"{user}@{hosts}")), unquote(password) or None


def passwords_of(topology: Topology) -> dict[str, str]:
    """The passwords in the URLs of outgrow.toml, by what they are for (see Secrets)."""
    urls = {
        "*": topology.database.url,
        "migrations": topology.database.migrations_url,
        "sessions": topology.sessions.url,
        "cache": topology.cache.url,
        "changes": topology.cache.changes_url,
        **_own_replicas(topology),
        **{f"cache-{number}": url for number, url in enumerate(topology.cache.more_urls, 2)},
    }
    found = {role: split_password(url)[1] for role, url in urls.items() if url is not None}
    return {role: password for role, password in found.items() if password is not None}


def secrets_of(secret: str, passwords: Mapping[str, str] | None = None) -> Secrets:
    """Secrets with every key derived from a text of any form."""
    return Secrets(application=hashlib.sha256(secret.encode()).hexdigest(), passwords=dict(passwords or {}))


def from_topology(
    topology: Topology,
    directory: Path,
    *,
    epoch: int = 1,
    nodes: tuple[Node, ...] = (),
    sessions_url: str | None = None,
    cache_urls: Sequence[str] = (),
    changes_url: str | None = None,
    secrets_file: str | None = None,
    control: str | None = None,
) -> Endpoints:
    """The document of a topology whose file stands in `directory`.

    `nodes`, `sessions_url`, `cache_urls` and `changes_url` are where the fleet runs these tiers; without them
    the topology's own urls or file count. A password in a URL is left out: it is in `passwords_of`. Raises
    Misuse when neither says where the database is.
    """
    settings = topology.database
    nodes = nodes or _own_nodes(topology, directory)
    return Endpoints(
        epoch=epoch,
        application=topology.application.name,
        stage=topology.stage,
        consistency=topology.application.consistency,
        database=Database(
            engine=settings.engine,
            shards=(Shard("0", nodes),),
            pool=settings.pool,
            statement_timeout_s=settings.statement_timeout,
            checkout_timeout_s=settings.checkout_timeout,
            durability=settings.durability,
            replication=settings.replication if len(nodes) > 1 else "none",
            max_lag_s=settings.max_lag,
        ),
        cache=Cache(
            engine=topology.cache.engine or "memory",
            url=cache_urls[0] if cache_urls else _without_password(topology.cache.url),
            more_urls=tuple(cache_urls[1:] or [split_password(url)[0] for url in topology.cache.more_urls]),
            entries_max=topology.cache.entries,
            unheard_s=topology.cache.unheard,
            bytes_max=None if topology.cache.entries_mb is None else topology.cache.entries_mb << 20,
            eviction=topology.cache.eviction,
            several=topology.processes > 1,
            loads_max=topology.cache.loads,
            changes_url=changes_url or _without_password(topology.cache.changes_url),
        ),
        queue=Queue(engine=topology.queue.engine, workers=topology.queue.workers),
        sessions=_sessions(topology, sessions_url),
        telemetry=Telemetry(
            metrics=topology.telemetry.metrics,
            access_log=topology.telemetry.access_log,
            otlp_endpoint=topology.telemetry.otlp_endpoint,
            trace_sample=topology.telemetry.trace_sample,
        ),
        secrets_file=secrets_file,
        control=control,
    )


def cache_passwords(cache: Cache, secrets: Secrets) -> list[str | None]:
    """Of its nodes. The fleet's own have one together, each of other nodes may have another."""
    first = secrets.passwords.get("cache")
    return [secrets.passwords.get(f"cache-{number}", first) for number in range(1, len(cache.urls) + 1)]


def _own_replicas(topology: Topology) -> dict[str, str]:
    """Name -> URL of the replicas that the topology names itself."""
    return {f"replica-{number}": url for number, url in enumerate(topology.database.replica_urls, 1)}


def _own_nodes(topology: Topology, directory: Path) -> tuple[Node, ...]:
    """What outgrow.toml names. Through a pooler of one's own go the replicas as well."""
    settings = topology.database
    if settings.url is not None:
        pooled = settings.pooler == "pgbouncer"
        urls = _own_replicas(topology).items()
        replicas = (Node(name, split_password(url)[0], "replica", pooled) for name, url in urls)
        return (Node(DATABASE, split_password(settings.url)[0], pooled=pooled), *replicas)
    if settings.file is not None:
        return (Node(DATABASE, f"sqlite:///{directory / settings.file}"),)
    raise Misuse(
        f"stage {topology.stage} needs a PostgreSQL, and no url says where it is",
        hint='`outgrow up` starts one, or write url = "postgresql://..." under [database]',
    )


def _without_password(url: str | None) -> str | None:
    return split_password(url)[0] if url is not None else None


def _sessions(topology: Topology, url: str | None) -> Sessions:
    settings = topology.sessions
    return Sessions(
        engine=settings.engine or "off",
        url=url or _without_password(settings.url),
        idle_timeout_s=settings.idle_timeout,
        lifetime_s=settings.lifetime,
        size_bytes_max=settings.size,
        cookie=settings.cookie,
        secure=settings.secure,
        same_site=settings.same_site,
    )


def _require_no_password(document: Endpoints) -> None:
    urls = [
        (f"database node {node.name}", node.url) for shard in document.database.shards for node in shard.nodes
    ]
    stores = (document.sessions, document.sessions.also)
    urls += [("the sessions", store.url) for store in stores if store is not None and store.url is not None]
    urls += [("the cache", url) for url in document.cache.urls]
    urls += [("the changes", url) for url in (document.cache.changes_url,) if url is not None]
    for what, url in urls:
        if split_password(url)[1] is not None:
            raise Misuse(
                f"the URL of {what} holds a password",
                hint="`split_password` takes it out; it belongs into Secrets.passwords",
            )


def _decode(path: str | os.PathLike[str], kind: type[T]) -> T:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except FileNotFoundError:
        raise Misuse(f"{path} does not exist", hint="start the fleet with `outgrow up`") from None
    except (msgspec.DecodeError, OSError) as error:
        raise StateUnreadable(
            f"{path} cannot be read: {error}", hint="`outgrow down`, then `outgrow up`"
        ) from error

"""What outgrow.toml says, as immutable values.

Every field is a key of the file: its type is what the parser accepts, and `Meta` holds the bounds
and the sentence that the JSON Schema shows. topology/reference.toml documents the same keys at length.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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

Duration = Annotated[float, Meta(gt=0, description='seconds, or text like "250ms", "30s", "5m", "1h"')]
ImportName = Annotated[str, Meta(pattern=r"^[\w.]+:[\w.]+$")]
PostgresUrl = Annotated[str, Meta(pattern=r"^(postgres|postgresql)://")]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://")]
Secret = Annotated[str, Meta(min_length=32)]
Count = Annotated[int, Meta(ge=1)]


class Application(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[application]"""

    name: Annotated[
        str,
        Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$", description="short name; also the database's and its role's"),
    ] = "app"
    app: Annotated[ImportName, Meta(description='the ASGI application: "module:attribute"')] = "app:app"
    migrations: Annotated[str | None, Meta(description="folder with Alembic revisions in versions/")] = None
    seed: Annotated[ImportName | None, Meta(description='"module:function" for `outgrow seed`')] = None
    host: Annotated[str, Meta(description="address to listen on; loopback unless you say otherwise")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=1, le=65535, description="port to listen on")] = 8000
    consistency: Annotated[
        Literal["strong", "session", "eventual"], Meta(description="how fresh reads are by default")
    ] = "session"
    secret: Annotated[
        Secret | None, Meta(description="every signing key derives from it; the fleet makes one")
    ] = None
    environment: Annotated[dict[str, str], Meta(description="variables for the application's processes")] = {}


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[database]"""

    engine: Annotated[Literal["sqlite", "postgres"], Meta(description="the stage chooses it")] = "sqlite"
    file: Annotated[str | None, Meta(description="SQLite's file; by default .outgrow/data/NAME.db")] = None
    url: Annotated[PostgresUrl | None, Meta(description="a PostgreSQL of your own")] = None
    migrations_url: Annotated[
        PostgresUrl | None, Meta(description="the same database, as a role that may create tables")
    ] = None
    programs: Annotated[
        str | None,
        Meta(
            description="folder of a PostgreSQL installation, 16 or newer, to run instead of the packaged one"
        ),
    ] = None
    pool: Annotated[int, Meta(ge=1, le=1000, description="connections of each process")] = 10
    statement_timeout: Annotated[Duration, Meta(description="a statement that runs longer is cancelled")] = (
        30.0
    )
    checkout_timeout: Annotated[Duration, Meta(description="how long a block waits for a connection")] = 5.0
    durability: Annotated[
        Literal["full", "normal"], Meta(description="full: a commit survives a power cut")
    ] = "full"


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[cache]"""

    engine: Annotated[Literal["memory", "off"], Meta(description="memory: in each process")] = "memory"
    entries: Annotated[Count, Meta(description="how many entries a process keeps")] = 10_000


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[queue]"""

    engine: Annotated[Literal["database"], Meta(description="a table in the application's database")] = (
        "database"
    )
    workers: Annotated[
        int, Meta(ge=0, le=1000, description="messages a process works on at once; 0: none")
    ] = 4


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[telemetry]"""

    metrics: Annotated[Literal["local", "public", "off"], Meta(description="who may read /metrics")] = "local"
    access_log: Annotated[bool, Meta(description="one JSON line for each request")] = True
    otlp_endpoint: Annotated[HttpUrl | None, Meta(description="OpenTelemetry collector, OTLP over HTTP")] = (
        None
    )
    trace_sample: Annotated[
        float, Meta(ge=0, le=1, description="share of the requests that are traced; errors always are")
    ] = 0.01


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Two topologies are equal when they mean the same."""

    stage: Annotated[str, Meta(description="the stage of the ladder: a name or a number")] = "single-server"
    application: Application = Application()
    database: Database = Database()
    cache: Cache = Cache()
    queue: Queue = Queue()
    telemetry: Telemetry = Telemetry()

    def with_port(self, port: int) -> Topology:
        """The same, listening on another port."""
        application = msgspec.structs.replace(self.application, port=port)
        return msgspec.structs.replace(self, application=application)

"""The one read model: what is true of a fleet at one moment, typed.

Dashboard, `outgrow status` and advice read it. Times are Unix seconds, durations milliseconds, sizes
bytes, rates a second, shares from 0 to 1; null is unknown.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from outgrow.advisor.keys import Key
from outgrow.advisor.machine import Machine
from outgrow.cluster.failovers import Failover

HealthStatus = Literal["ok", "degraded", "failing", "unknown"]
Unit = Literal["rate", "ms", "share", "cores", "bytes", "count"]


class Health(msgspec.Struct, frozen=True):
    """The worst of all that is known, and why."""

    status: HealthStatus
    reasons: list[str]


class Traffic(msgspec.Struct, frozen=True):
    """What the application has answered in the last few seconds, all its processes together."""

    rate: float
    p50: float | None
    p95: float | None
    p99: float | None
    errors: float
    error_share: float
    in_flight: float


class Figure(msgspec.Struct, frozen=True):
    """One figure of a box in the drawing."""

    label: str
    value: float | None
    unit: Unit


class Box(msgspec.Struct, frozen=True):
    """One part of the drawing: a node, or a tier that lives inside one (`inside` is that box's id)."""

    id: str
    tier: str
    title: str
    detail: str
    state: str
    figures: list[Figure]
    inside: str | None = None
    text: str = ""
    address: str | None = None
    pid: int | None = None
    since: float | None = None
    restarts: int = 0


class Link(msgspec.Struct, frozen=True):
    """Who asks whom, and how often."""

    source: str
    target: str
    rate: float | None = None


class Drawing(msgspec.Struct, frozen=True):
    """The topology as it runs: boxes in the order of `tiers`, from the clients to the data.

    `notes` say of a tier what is in each of its boxes, where that would be too much to draw.
    """

    tiers: list[str]
    boxes: list[Box]
    links: list[Link]
    notes: dict[str, str] = {}


class Node(msgspec.Struct, frozen=True):
    """One node of the fleet. `cpu` is in cores."""

    name: str
    tier: str
    kind: str
    state: str
    text: str
    pid: int | None
    address: str | None
    since: float
    restarts: int
    cpu: float | None
    memory: int | None


class Balanced(msgspec.Struct, frozen=True):
    """One server as the balancers see it. `share` is its part of all requests, `weight` its algorithm's."""

    pool: str
    state: str
    share: float | None
    rate: float | None
    failed: float | None
    under_way: int
    connections: int
    weight: int


class Server(msgspec.Struct, frozen=True):
    """One application server over the last few seconds, its processes together, from their own metrics.

    `state` is also "unhealthy", "ejected" or "draining" where a balancer says so of a server that is ready.
    """

    name: str
    state: str
    text: str
    address: str | None
    processes: list[str]
    pid: int | None
    since: float
    restarts: int
    share: float | None
    rate: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    errors: float | None
    in_flight: float | None
    cpu: float | None
    memory: int | None
    balanced: Balanced | None


class Replica(msgspec.Struct, frozen=True):
    """One node of a database with replicas. `role` is empty while it does not serve; `lag` is in bytes.

    `reads` are read blocks a second, `share` its part of all of them, `reasons` the rate by why they came.
    """

    name: str
    role: str
    state: str
    text: str
    timeline: int | None
    lag: int | None
    reads: float | None
    share: float | None
    reasons: dict[str, float]


class Route(msgspec.Struct, frozen=True):
    """One route over the last minute."""

    route: str
    methods: list[str]
    rate: float
    p50: float | None
    p95: float | None
    p99: float | None
    error_share: float


class Query(msgspec.Struct, frozen=True):
    """One kind of statement over the last minute. `busy` is how many run at once on average."""

    node: str
    label: str
    rate: float
    mean: float
    p99: float | None
    busy: float


class CachePrefix(msgspec.Struct, frozen=True):
    """Keys of one prefix over the last minute. `shared` and `sessions` are reads, `loads` loads a second."""

    prefix: str
    rate: float
    hit_rate: float | None
    shared: float
    sessions: float
    loads: float
    load_ms: float | None


class Caches(msgspec.Struct, frozen=True):
    """All processes' caches over the last minute. `evicted` is a second; `keys` are those read most."""

    rate: float
    hit_rate: float | None
    entries: int
    bytes: int
    evicted: float
    server_bytes: int | None
    server_bytes_max: int | None
    prefixes: list[CachePrefix]
    keys: list[Key]


class Requests(msgspec.Struct, frozen=True):
    """How many slow and failed requests are kept, and the highest id."""

    kept: int
    failed: int
    newest: int


class Action(msgspec.Struct, frozen=True):
    """What was asked for from the page last. `line` is what the command said last."""

    says: str
    began: float
    ended: float | None
    outcome: Literal["running", "done", "failed"]
    line: str


class Growth(msgspec.Struct, frozen=True):
    """A growth that is under way: the last line of its journal. `cut_off`: nobody works on it."""

    move: str
    step: str
    event: str
    since: float
    cut_off: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole. `latest` holds the newest value of every series of the history."""

    at: float
    application: str
    stage: str
    stage_number: int
    stage_title: str
    epoch: int
    url: str
    since: float
    answers: bool
    """Whether the fleet's supervisor answered; if not, this is what was known last."""
    health: Health
    growth: Growth | None
    action: Action | None
    traffic: Traffic
    machine: Machine | None
    nodes: list[Node]
    servers: list[Server]
    replicas: list[Replica]
    failovers: list[Failover]
    drawing: Drawing
    routes: list[Route]
    queries: list[Query]
    caches: Caches | None
    requests: Requests
    newest_event: int
    latest: dict[str, float]


class Summary(msgspec.Struct):
    """The part of a snapshot that `outgrow status` shows. Unknown fields are passed over."""

    at: float
    health: Health
    traffic: Traffic
    servers: list[Server] = []

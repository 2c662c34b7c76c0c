"""What a fleet tells of itself."""

from __future__ import annotations

import msgspec

from outgrow.cluster.failovers import Failover


class NodeStatus(msgspec.Struct, frozen=True):
    """One node. `since` is Unix time, `cpu` the share of one core since the last look, `memory` bytes.

    `address` may be shared with others; at `own` this process alone answers.
    Memory is proportional (PSS): what processes share is counted once.
    Of a database with replicas: `role` is "primary", "replica" or "synchronous replica", `lag` the bytes of
    the log that it has not replayed yet.
    """

    name: str
    kind: str
    state: str
    pid: int | None
    address: str | None
    restarts: int
    since: float
    cpu: float | None = None
    memory: int | None = None
    text: str = ""
    tier: str = ""
    own: str | None = None
    role: str = ""
    timeline: int | None = None
    lag: int | None = None


class Autoscaling(msgspec.Struct, frozen=True):
    """What the autoscaler sees and wants. Times are Unix time; `now` and `targets` by the target's key.

    `last` is what it has done last, and why.
    """

    at: float = 0.0
    servers: int = 0
    minimum: int = 0
    maximum: int = 0
    targets: dict[str, float] = {}
    now: dict[str, float | None] = {}
    wanted: int = 0
    reason: str = ""
    last: str = ""
    last_at: float | None = None


class Status(msgspec.Struct, frozen=True):
    """The whole fleet. `warnings`: what its topology allows and hardly means.

    `release` is the number of the code that runs; 0 if none is kept of it. `failovers`: since its start.
    """

    application: str
    stage: str
    epoch: int
    url: str
    since: float
    supervisor_pid: int
    nodes: tuple[NodeStatus, ...]
    dashboard: str | None = None
    warnings: tuple[str, ...] = ()
    release: int = 0
    autoscale: Autoscaling | None = None
    failovers: tuple[Failover, ...] = ()

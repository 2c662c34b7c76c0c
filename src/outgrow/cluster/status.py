"""What a fleet tells of itself."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from outgrow.cluster.failovers import Failover

SYNCHRONOUS = "synchronous replica"


class Part(NamedTuple):
    """What a node is to the others: see NodeStatus."""

    role: str = ""
    timeline: int | None = None
    lag: int | None = None
    kept: int | None = None


class NodeStatus(msgspec.Struct, frozen=True):
    """One node. `since` is Unix time, `cpu` the share of one core since the last look, `memory` bytes.

    `address` may be shared with others; at `own` this process alone answers.
    Memory is proportional (PSS): what processes share is counted once.
    Of a database with replicas: `role` is "primary", "replica" or "synchronous replica", `lag` the bytes of
    the log that it has not replayed yet, `kept` those that the primary keeps for it.
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
    kept: int | None = None


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


class Backups(msgspec.Struct, frozen=True):
    """How the backups stand. Times are Unix time, `behind_s` seconds, `behind` bytes.

    `connected`: the write-ahead log is being read. `latest`: when the last copy of the whole was complete,
    and `every` how often one is to be made. `earliest`: the first moment that can be restored. `failure`:
    why the last copy failed, and `failed_at` when one did. `mirror_behind_s`: how long ago the mirror had
    everything, None where there is none; `mirror_failure`: why it has not now. `wrong`: what of this
    somebody must see to, as sentences.
    """

    at: float = 0.0
    connected: bool = False
    behind: int | None = None
    behind_s: float = 0.0
    latest: float | None = None
    earliest: float | None = None
    copies: int = 0
    every: float = 0.0
    failure: str = ""
    failed_at: float | None = None
    mirror_behind_s: float | None = None
    mirror_failure: str = ""
    wrong: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """The whole fleet. `warnings`: what its topology allows and hardly means.

    `release` is the number of the code that runs; 0 if none is kept of it. `failovers`: since its start.
    `replication` is how commits reach the replicas (database.replication); "" without any.
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
    replication: str = ""
    failovers: tuple[Failover, ...] = ()
    backups: Backups | None = None


SEEN_WITHIN_S = 30.0


def judged(backups: Backups, behind_s: float, now: float) -> Backups:
    """The same with what is wrong, when an archive may be so far behind."""
    told = []
    if now - backups.at > max(behind_s, SEEN_WITHIN_S):
        told.append("nobody has looked after the backups for a while: `outgrow logs backups`")
    elif backups.behind_s > behind_s:
        how = (
            "nobody reads the write-ahead log" if not backups.connected else f"{backups.behind or 0:,} bytes"
        )
        told.append(
            f"the archive of backups is {backups.behind_s:.0f} s behind ({how}): `outgrow logs wal-archive`"
        )
    if backups.failure:
        told.append(f"the last copy for backups failed: {backups.failure}")
    if (backups.mirror_behind_s or 0.0) > max(behind_s, SEEN_WITHIN_S):
        why = f": {backups.mirror_failure}" if backups.mirror_failure else ""
        told.append(f"the mirror of backups is {backups.mirror_behind_s:.0f} s behind{why}")
    return msgspec.structs.replace(backups, wrong=tuple(told))

"""WHAT must run: programs, their files, sockets, probes and limits.

Engines produce workloads; the supervisor runs them on this machine, and the Kubernetes renderer
will turn the same value into manifests. A workload knows nothing of the server it describes.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class File(msgspec.Struct, frozen=True):
    """A file that must exist, with exactly this text and mode, before the program starts."""

    path: str
    text: str
    mode: int = 0o644


class Address(msgspec.Struct, frozen=True):
    """A TCP address on this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Probe(msgspec.Struct, frozen=True):
    """When a service counts as ready.

    http: a GET of `path` at `address` answers 2xx.  tcp: a connection is accepted.
    command: `argv` exits with 0.
    """

    kind: Literal["http", "tcp", "command"]
    address: Address | None = None
    path: str = "/health"
    argv: tuple[str, ...] = ()
    interval_s: float = 0.05
    timeout_s: float = 30.0


class Restart(msgspec.Struct, frozen=True):
    """Restart with doubling back-off; give up after `limit` deaths within `window_s`."""

    first_delay_s: float = 0.1
    delay_max_s: float = 10.0
    limit: int = 8
    window_s: float = 60.0


class Stop(msgspec.Struct, frozen=True):
    """How to end it: this signal, then SIGKILL after `grace_s`."""

    signal: Literal["TERM", "INT", "QUIT"] = "TERM"
    grace_s: float = 10.0


class Workload(msgspec.Struct, frozen=True):
    """One program to run.

    A `job` must exit with 0 before anything that comes after it starts; a `service` must become
    ready and is kept alive. `listen` sockets are opened by the supervisor and inherited (the
    environment's OUTGROW_LISTEN_FDS has their descriptors, with commas between them), so a restart
    refuses no connection: who connects waits. Of a `pool`, before which a balancer stands, one that has
    died refuses as long as another is ready: the balancer then asks that one at once. `tier` is where it
    is drawn: "application", "database"; jobs and what only watches have none. `unprivileged` drops root
    where the supervisor has it (PostgreSQL refuses root). The last of several `listen` sockets is the
    process's own, where others of its name share the first. `serves` is where it answers those whom it
    is for, where nothing else here says it. `claims` are addresses on which the program listens by
    itself, with SO_REUSEPORT: nobody outside the fleet gets them meanwhile. `host` is the emulated
    machine on which it runs, and `cpu` how many cores that has; None: no limit.
    """

    name: str
    argv: tuple[str, ...]
    kind: Literal["service", "job"] = "service"
    tier: str = ""
    environment: dict[str, str] = {}
    files: tuple[File, ...] = ()
    directory: str | None = None
    listen: tuple[Address, ...] = ()
    pool: str = ""
    claims: tuple[Address, ...] = ()
    host: str = ""
    cpu: float | None = None
    after: tuple[str, ...] = ()
    readiness: Probe | None = None
    restart: Restart = Restart()
    stop: Stop = Stop()
    unprivileged: bool = False
    serves: Address | None = None

    @property
    def own(self) -> Address | None:
        """Where exactly this process answers."""
        if self.listen:
            return self.listen[-1]
        return self.readiness.address if self.readiness is not None else None

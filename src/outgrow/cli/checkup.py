"""What `outgrow doctor` looks at. Every check looks and changes nothing."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from outgrow import endpoints
from outgrow.cli import application, units
from outgrow.errors import EngineMissing, Misuse, OutgrowError
from outgrow.topology.model import Topology

DISK_FREE_MIN = 1 << 30
"""Below this PostgreSQL's write-ahead log alone may fill the disk."""

SQLITE_MIN = (3, 35)
"""The first with RETURNING, which claiming messages needs."""

MACHINE = "This machine"
APPLICATION = "This application"
EXTRAS = {
    "postgres": "Talk to PostgreSQL (stage 2 on)",
    "fleet": "Run PostgreSQL on this machine (stage 2 on)",
    "balancer": "Balance load between servers (stage 4 on)",
    "redis": "Keep sessions and a shared cache in Redis (stage 6 on)",
    "s3": "Have backups once more in an S3-compatible store (backup.mirror)",
    "otlp": "Send traces (telemetry.otlp_endpoint)",
}
"""What each extra of the package is for; all of them are looked at."""

State = Literal["ok", "missing", "absent"]


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. `fix` is a command or a sentence. `absent` is missing but not needed now."""

    group: str
    name: str
    state: State
    detail: str = ""
    fix: str = ""


def all_checks(directory: Path | None, stage: str | None = None) -> list[Check]:
    """Everything, in the order of reading. A broken outgrow.toml is a finding, not an error.

    Raises Misuse when `directory` is none, or `stage` is none of the ladder.
    """
    topology, findings = _topology(directory, stage)
    needed = _extras_needed(topology)
    checks = [*_machine(), *_packages("", "Outgrow", needed=True)]
    for extra, purpose in EXTRAS.items():
        seen = {check.name for check in checks}
        found = _packages(extra, purpose, needed=extra in needed)
        checks += [check for check in found if check.name not in seen]
        if extra == "fleet":
            checks += _postgres(topology)
        elif extra == "balancer":
            checks += _envoy(topology)
        elif extra == "redis":
            checks.append(_redis(topology))
    checks += findings
    if topology is not None:
        checks += _application(application.fleet_directory(directory), topology)
    return checks


def _check(group: str, name: str, detail: str, *, ok: bool, fix: str, needed: bool = True) -> Check:
    """A check that says how to fix it only where there is something to fix."""
    if ok:
        return Check(group, name, "ok", detail)
    return Check(group, name, "missing" if needed else "absent", detail, fix)


def _machine() -> Iterator[Check]:
    yield Check(MACHINE, "Python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _check(
        MACHINE,
        platform.system(),
        platform.release(),
        ok=sys.platform == "linux",
        fix="a fleet needs pidfd and /proc: run it on Linux",
    )
    yield _check(
        MACHINE,
        "SQLite",
        sqlite3.sqlite_version,
        ok=sqlite3.sqlite_version_info >= SQLITE_MIN,
        fix=f"use a Python built with SQLite {'.'.join(map(str, SQLITE_MIN))} or newer",
    )


def _packages(extra: str, group: str, *, needed: bool) -> Iterator[Check]:
    """The distributions that this extra asks for ("" for Outgrow's own)."""
    install = f"pip install 'outgrow[{extra}]'" if extra else "pip install --upgrade outgrow"
    for name in _required(extra):
        try:
            yield Check(group, name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield _check(group, name, "not installed", ok=False, fix=install, needed=needed)


_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*(?:;.*extra == ['\"](?P<extra>[^'\"]+)['\"])?")


def _required(extra: str) -> Iterator[str]:
    for requirement in metadata.requires("outgrow") or ():
        match = _REQUIREMENT.match(requirement)
        if match and (match["extra"] or "") == extra and match["name"] != "outgrow":
            yield match["name"]


def _extras_needed(topology: Topology | None) -> set[str]:
    if topology is None:
        return set()
    needed: set[str] = set()
    if topology.database.engine == "postgres":
        needed.add("postgres")
    if _runs_postgres(topology) and topology.database.programs is None:
        needed.add("fleet")
    if "redis" in (topology.sessions.engine, topology.cache.engine):
        needed.add("redis")
    if topology.backup.mirror is not None:
        needed.add("s3")
    if topology.telemetry.otlp_endpoint is not None:
        needed.add("otlp")
    return needed


def _runs_postgres(topology: Topology | None) -> bool:
    return topology is not None and topology.database.engine == "postgres" and topology.database.url is None


def _postgres(topology: Topology | None) -> Iterator[Check]:
    """What runs PostgreSQL here: its programs, and what they need beside them."""
    from outgrow.engines.postgres import postgres

    group, needed = EXTRAS["fleet"], _runs_postgres(topology)
    try:
        found = postgres.find(topology.database.programs if topology else None)
    except EngineMissing as error:
        yield _check(group, "PostgreSQL", error.message, ok=False, fix=error.hint, needed=needed)
        return
    encrypts = "encrypts connections" if found.tls else "built without TLS: loopback alone"
    yield Check(group, "PostgreSQL", "ok", f"{found.programs} ({encrypts})")
    if os.geteuid() == 0:
        yield _without_root(group, needed=needed)
    if found.tls:
        yield _program(group, "openssl", "apt-get install openssl", needed=needed)
    yield _pgbouncer(group, topology)
    yield _etcd(group, topology)


def _pgbouncer(group: str, topology: Topology | None) -> Check:
    """What shares connections between the processes, once they would have too many."""
    from outgrow.engines.pgbouncer import pgbouncer
    from outgrow.engines.postgres import postgres

    needed = _runs_postgres(topology) and topology is not None and postgres.pooled(topology)
    try:
        found = pgbouncer.find()
    except EngineMissing as error:
        return _check(group, "PgBouncer", error.message, ok=False, fix=error.hint, needed=needed)
    return Check(group, "PgBouncer", "ok", str(found))


def _etcd(group: str, topology: Topology | None) -> Check:
    """What agrees on the primary, where the database has replicas."""
    from outgrow.engines.etcd import etcd

    needed = _runs_postgres(topology) and topology is not None and topology.database.copies > 0
    try:
        found = etcd.find()
    except EngineMissing as error:
        return _check(group, "etcd", error.message, ok=False, fix=error.hint, needed=needed)
    return Check(group, "etcd", "ok", str(found))


def _envoy(topology: Topology | None) -> Iterator[Check]:
    """Envoy's program, wherever it comes from: its package is only one way to have it."""
    from outgrow.engines.envoy import envoy

    group, needed = EXTRAS["balancer"], topology is not None and topology.balancer.engine == "envoy"
    try:
        yield Check(group, "Envoy", "ok", str(envoy.find()))
    except EngineMissing as error:
        yield _check(group, "Envoy", error.message, ok=False, fix=error.hint, needed=needed)
    if topology is not None and topology.balancer.tls.enabled:
        yield _program(group, "openssl", "apt-get install openssl", needed=needed)


def _redis(topology: Topology | None) -> Check:
    """The program that the fleet runs for the sessions and the cache."""
    from outgrow.engines.redis import redis

    tiers = (topology.sessions, topology.cache) if topology is not None else ()
    needed = any(each.engine == "redis" and each.url is None for each in tiers)
    try:
        found = redis.find()
    except EngineMissing as error:
        return _check(EXTRAS["redis"], "Redis", error.message, ok=False, fix=error.hint, needed=needed)
    return Check(EXTRAS["redis"], "Redis", "ok", str(found))


def _program(group: str, name: str, install: str, *, needed: bool) -> Check:
    found = shutil.which(name)
    return _check(group, name, found or "not found", ok=found is not None, fix=install, needed=needed)


def _without_root(group: str, *, needed: bool) -> Check:
    """PostgreSQL refuses to run as root, so a fleet of root's starts it in a user namespace."""
    from outgrow.supervisor.process import unprivileged

    found = _program(group, "unshare", "apt-get install util-linux", needed=needed)
    if found.state != "ok":
        return found
    tried = subprocess.run([*unprivileged(), "true"], capture_output=True, check=False)
    fix = "this kernel gives no user namespaces to root: run Outgrow as an ordinary user"
    return _check(group, "unshare", found.detail, ok=tried.returncode == 0, fix=fix, needed=needed)


def _topology(directory: Path | None, stage: str | None) -> tuple[Topology | None, list[Check]]:
    """The application's topology, or what is wrong with it; neither where there is no application."""
    try:
        where = application.directory_with_topology(directory)
    except OutgrowError as error:
        if directory is not None or stage is not None:
            raise
        return None, [Check(APPLICATION, application.FILE, "absent", error.message, error.hint)]
    try:
        topology = application.topology(where, stage=stage)
    except Misuse as error:
        if stage is not None:
            raise
        return None, [Check(APPLICATION, application.FILE, "missing", error.message, error.hint)]
    return topology, [Check(APPLICATION, application.FILE, "ok", f"stage {topology.stage}, in {where}")]


def _application(directory: Path, topology: Topology) -> Iterator[Check]:
    state = directory / application.STATE
    place = state if state.exists() else directory
    yield _check(
        APPLICATION,
        "writable",
        str(place),
        ok=place.is_dir() and os.access(place, os.W_OK | os.X_OK),
        fix=f"let this user write to {place}: its fleet keeps logs and data there",
    )
    free = shutil.disk_usage(directory).free
    yield _check(
        APPLICATION,
        "disk space",
        f"{units.size(free)} free",
        ok=free >= DISK_FREE_MIN,
        fix="make room on this disk",
    )
    yield _migrations(directory, topology)
    yield _port(directory, topology)
    if topology.cache.changes_url is not None:
        yield _changes(topology.cache.changes_url)


def _migrations(directory: Path, topology: Topology) -> Check:
    folder = topology.application.migrations
    if folder is None:
        return Check(APPLICATION, "migrations", "ok", "none")
    versions = directory / folder / "versions"
    if not versions.is_dir():
        return Check(APPLICATION, "migrations", "missing", f"there is no {versions}", f"mkdir -p {versions}")
    return Check(APPLICATION, "migrations", "ok", f"{len(list(versions.glob('*.py')))} in {versions}")


def _changes(url: str) -> Check:
    """Whether a database of one's own lets the cache follow its changes."""
    try:
        from outgrow.runtime.database.postgres_readiness import lacking

        said = asyncio.run(lacking(*endpoints.split_password(url)))
    except ModuleNotFoundError:
        return Check(APPLICATION, "changes", "missing", "no driver", "pip install 'outgrow[postgres]'")
    except OutgrowError as error:
        return Check(APPLICATION, "changes", "missing", error.message, error.hint)
    role = urlsplit(url).username
    return _check(APPLICATION, "changes", f"read by {role}", ok=not said, fix=" ".join(said))


def _port(directory: Path, topology: Topology) -> Check:
    from outgrow import cluster

    host, port = topology.application.host, topology.application.port
    where = f"{host}:{port}"
    if cluster.running(directory):
        return Check(APPLICATION, "port", "ok", f"{where}, and this application's fleet is running")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = f"{where}: {error.strerror}"
            return Check(APPLICATION, "port", "missing", reason, "choose another: `outgrow up --port N`")
    return Check(APPLICATION, "port", "ok", f"{where} is free")

"""What `outgrow doctor` looks at. Every check looks and changes nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

from outgrow.cli import application, units
from outgrow.errors import EngineMissing, OutgrowError
from outgrow.topology.model import Topology

DISK_FREE_MIN = 1 << 30
"""Below this PostgreSQL's write-ahead log alone may fill the disk."""

SQLITE_MIN = (3, 35)
"""The first with RETURNING, which claiming messages needs."""

EXTRAS = {
    "postgres": "Talk to PostgreSQL (stage 2 on)",
    "fleet": "Run PostgreSQL on this machine (stage 2 on)",
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


def all_checks(directory: Path | None) -> list[Check]:
    """Everything, in the order of reading. A broken outgrow.toml is a finding, not an error."""
    topology, findings = _topology(directory)
    needed = _extras_needed(topology)
    checks = [*_machine(), *_packages("", "Outgrow", needed=True)]
    for extra, purpose in EXTRAS.items():
        checks += _packages(extra, purpose, needed=extra in needed)
    checks += _postgres_programs(topology, needed="fleet" in needed)
    checks += findings
    if topology is not None:
        checks += _application(application.fleet_directory(directory), topology)
    return checks


def _machine() -> Iterator[Check]:
    group = "This machine"
    yield Check(group, "Python", "ok", f"{platform.python_version()} at {sys.executable}")
    linux = sys.platform == "linux"
    yield Check(
        group,
        "Linux",
        "ok" if linux else "missing",
        platform.release(),
        "the fleet needs pidfd and /proc: run it on Linux",
    )
    new_enough = sqlite3.sqlite_version_info >= SQLITE_MIN
    wanted = ".".join(map(str, SQLITE_MIN))
    yield Check(
        group,
        "SQLite",
        "ok" if new_enough else "missing",
        sqlite3.sqlite_version,
        f"a Python built with SQLite {wanted} or newer",
    )


def _packages(extra: str, group: str, *, needed: bool) -> Iterator[Check]:
    """The distributions that this extra asks for ("" for Outgrow's own)."""
    install = f"pip install 'outgrow[{extra}]'" if extra else "pip install --upgrade outgrow"
    for name in _required(extra):
        try:
            yield Check(group, name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(group, name, "missing" if needed else "absent", "not installed", install)


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
        if topology.database.url is None and topology.database.programs is None:
            needed.add("fleet")
    if topology.telemetry.otlp_endpoint is not None:
        needed.add("otlp")
    return needed


def _postgres_programs(topology: Topology | None, *, needed: bool) -> Iterator[Check]:
    """What runs PostgreSQL here: its programs, and what starts them without root."""
    from outgrow.engines import postgres

    group = EXTRAS["fleet"]
    absent: State = "missing" if needed else "absent"
    try:
        programs = postgres.programs(topology.database.programs if topology else None)
        yield Check(group, "PostgreSQL", "ok", str(programs))
    except EngineMissing as error:
        yield Check(group, "PostgreSQL", absent, error.message, error.hint)
    if os.geteuid() == 0:
        found = shutil.which("unshare")
        yield Check(
            group,
            "unshare",
            "ok" if found else absent,
            found or "not found; PostgreSQL refuses to run as root",
            "apt-get install util-linux",
        )
    found = shutil.which("openssl")
    yield Check(
        group,
        "openssl",
        "ok" if found else "absent",
        found or "not found; without it connections on this machine are not encrypted",
        "apt-get install openssl",
    )


def _topology(directory: Path | None) -> tuple[Topology | None, list[Check]]:
    """The application's topology, or what is wrong with it; neither where there is no application."""
    group = "This application"
    try:
        where = application.directory_with_topology(directory)
    except OutgrowError as error:
        if directory is not None:
            raise
        return None, [Check(group, application.FILE, "absent", error.message, error.hint)]
    try:
        topology = application.topology(where)
    except OutgrowError as error:
        return None, [Check(group, application.FILE, "missing", error.message, error.hint)]
    return topology, [Check(group, application.FILE, "ok", f"stage {topology.stage}, in {where}")]


def _application(directory: Path, topology: Topology) -> Iterator[Check]:
    group = "This application"
    state = directory / application.STATE
    place = state if state.exists() else directory
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    yield Check(
        group,
        "writable",
        "ok" if writable else "missing",
        str(place),
        f"let this user write to {place}: its fleet keeps logs and data there",
    )
    free = shutil.disk_usage(directory).free
    enough = free >= DISK_FREE_MIN
    yield Check(
        group,
        "disk space",
        "ok" if enough else "missing",
        f"{units.size(free)} free",
        "make room on this disk",
    )
    yield _migrations(group, directory, topology)
    yield _port(group, directory, topology)


def _migrations(group: str, directory: Path, topology: Topology) -> Check:
    folder = topology.application.migrations
    if folder is None:
        return Check(group, "migrations", "ok", "none")
    versions = directory / folder / "versions"
    if versions.is_dir():
        return Check(group, "migrations", "ok", f"{len(list(versions.glob('*.py')))} in {versions}")
    return Check(group, "migrations", "missing", f"{versions} does not exist", f"mkdir -p {versions}")


def _port(group: str, directory: Path, topology: Topology) -> Check:
    from outgrow import cluster

    host, port = topology.application.host, topology.application.port
    where = f"{host}:{port}"
    if cluster.running(directory):
        return Check(group, "port", "ok", f"{where}, and this application's fleet is running")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Check(
                group, "port", "missing", f"{where}: {error.strerror}", "another: `outgrow up --port N`"
            )
    return Check(group, "port", "ok", f"{where} is free")

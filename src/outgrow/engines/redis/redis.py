"""Redis, or Valkey, as a node of its own, on an own loopback address: what all of them have in common.

    sessions.py   what is in it survives a restart, and nothing is forgotten before its time
    cache.py      what is in it may vanish at any time, and does when there is no room

Each has a password over TCP and no Unix socket. The application's user may do what its tier needs, to that
tier's keys, and nothing else. The default user is off. The server holds hashes of passwords alone.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from outgrow.engines.base import Placement
from outgrow.errors import EngineMissing
from outgrow.topology.model import Topology
from outgrow.workload import Address, File, Probe, Stop, Workload

PORT = 6379
VERSION_MIN = 7
PROGRAMS = ("redis-server", "valkey-server")
PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
"""Debian's, and that of `make install`: a service's PATH may lack them."""

INSTALL = "apt-get install redis-server"
READY = "outgrow.engines.redis.ready"

Settings = Mapping[str, str | int]


class Redis(ABC):
    """One server of one tier, whose name is also that of the password. Raises EngineMissing."""

    last: str
    tier: ClassVar[str]

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._program = find()
        self._topology = topology
        self._place = placement

    @abstractmethod
    def settings(self) -> Settings:
        """How much it keeps, for how long, and where."""

    @abstractmethod
    def users(self) -> str:
        """Who may do what: the file of its users. The placement's secrets must have been made."""

    @property
    def url(self) -> str:
        """For the application. It holds no password."""
        return f"redis://{self._topology.application.name}@{self._place.host}:{PORT}"

    def workloads(self) -> tuple[Workload, ...]:
        """The server alone."""
        folder = self._place.data
        data = folder / self.last
        settings, access = folder / f"{self.last}.conf", folder / f"{self.last}-access.conf"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        address = Address(self._place.host, PORT)
        return (
            Workload(
                name=self.last,
                tier=self.tier,
                argv=(str(self._program), str(settings)),
                environment={"OUTGROW_SECRETS": str(self._place.secrets)},
                files=(
                    File(str(settings), configuration(address, data, access, self.settings()), 0o600),
                    File(str(access), self.users(), 0o600),
                ),
                # An open port is not enough: while it reads its data it accepts, and refuses commands.
                readiness=Probe(
                    "command",
                    address,
                    argv=(sys.executable, "-m", READY, self.url, self.tier),
                    timeout_s=120,
                ),
                stop=Stop("TERM", grace_s=10),
                unprivileged=True,
            ),
        )


def configuration(address: Address, data: Path, access: Path, more: Settings) -> str:
    """redis.conf: what every one has, and what the tier wants."""
    settings: Settings = {
        "bind": address.host,
        # Else its own connections come from 127.0.0.1, and replicas are known by the wrong address.
        "bind-source-addr": address.host,
        "port": address.port,
        "dir": f'"{data}"',
        "aclfile": f'"{access}"',
        "databases": 1,
        "save": '""',
        **more,
        # A title would be written over the environment, by which the fleet knows its own.
        "set-proc-title": "no",
        "daemonize": "no",
        "always-show-logo": "no",
    }
    lines = [f"{key} {value}" for key, value in settings.items()]
    return "\n".join(["# Written by Outgrow at every start: edit outgrow.toml instead.", *lines, ""])


def user(name: str, password: str, rights: str) -> str:
    """One line of the file of users: what it may do beyond nothing."""
    hashed = hashlib.sha256(password.encode()).hexdigest()
    return f"user {name} on #{hashed} resetchannels -@all {rights}\n"


def find() -> Path:
    """The program to run: Redis before Valkey, PATH before Debian's places. Raises EngineMissing."""
    told = "none found"
    for name in PROGRAMS:
        for place in (None, *PLACES):
            found = shutil.which(name, path=place)
            if found is None:
                continue
            told = _version(found)
            version = re.search(r"v=(\d+)", told)
            if version is not None and int(version[1]) >= VERSION_MIN:
                return Path(found)
    raise EngineMissing(f"Redis {VERSION_MIN} or newer, or Valkey ({told}),", install=INSTALL)


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()

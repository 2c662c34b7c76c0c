"""Redis, or Valkey, as a node of its own, on an own loopback address: for the sessions.

    redis-sessions   service   a password over TCP, no Unix socket; what is in it survives a restart

One user, the application's, which may read and write the application's sessions and nothing else: no other
key, no other command. The default user is off. The server holds a hash of the password alone.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from outgrow import endpoints
from outgrow.engines.base import Placement
from outgrow.errors import EngineMissing
from outgrow.topology.model import Topology
from outgrow.workload import Address, File, Probe, Stop, Workload

NAME = "redis-sessions"
PORT = 6379
VERSION_MIN = 7
PROGRAMS = ("redis-server", "valkey-server")
PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
"""Debian's, and that of `make install`: a service's PATH may lack them."""

INSTALL = "apt-get install redis-server"
READY = "outgrow.engines.redis_ready"
MEMORY = "256mb"
COMMANDS = "+hmget +hget +hset +pexpire +del +scan +evalsha +script|load +ping"
"""Those that sessions need. By SCAN they are found that have to go to another store."""


class Redis:
    """One server. Raises EngineMissing when no program fits."""

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._program = find()
        self._name = topology.application.name
        self._place = placement
        self.last = NAME

    @property
    def url(self) -> str:
        """For the application. It holds no password."""
        return f"redis://{self._name}@{self._place.host}:{PORT}"

    def workloads(self) -> tuple[Workload, ...]:
        """The server alone. The placement's secrets must have been made."""
        data = self._place.data / NAME
        settings, access = self._place.data / f"{NAME}.conf", self._place.data / f"{NAME}-access.conf"
        password = endpoints.read_secrets(self._place.secrets).passwords["sessions"]
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (
            Workload(
                name=NAME,
                tier="sessions",
                argv=(str(self._program), str(settings)),
                environment={"OUTGROW_SECRETS": str(self._place.secrets)},
                files=(
                    File(str(settings), configuration(self._place.host, PORT, data, access), 0o600),
                    File(str(access), permissions(self._name, password), 0o600),
                ),
                # An open port is not enough: while it reads its data it accepts, and refuses commands.
                readiness=Probe(
                    "command",
                    Address(self._place.host, PORT),
                    argv=(sys.executable, "-m", READY, self.url),
                    timeout_s=120,
                ),
                stop=Stop("TERM", grace_s=10),
                unprivileged=True,
            ),
        )


def configuration(host: str, port: int, data: Path, access: Path) -> str:
    """redis.conf. What was kept more than two seconds ago survives even a power cut."""
    settings = {
        "bind": host,
        # Else its own connections come from 127.0.0.1, and replicas are known by the wrong address.
        "bind-source-addr": host,
        "port": port,
        "dir": f'"{data}"',
        "aclfile": f'"{access}"',
        "databases": 1,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory": MEMORY,
        # To refuse a new session is told; to forget one logs somebody out.
        "maxmemory-policy": "noeviction",
        # A title would be written over the environment, by which the fleet knows its own.
        "set-proc-title": "no",
        "daemonize": "no",
        "always-show-logo": "no",
    }
    lines = [f"{key} {value}" for key, value in settings.items()]
    return "\n".join(["# Written by Outgrow at every start: edit outgrow.toml instead.", *lines, ""])


def permissions(name: str, password: str) -> str:
    """The file of its users: the application's, with the least that it must be able to do.

    Nobody can be the default user, but in its name the server reads its own file at a start: without
    rights it would pass over every transaction there, and lose what is in it.
    """
    hashed = hashlib.sha256(password.encode()).hexdigest()
    return (
        "user default off resetpass ~* &* +@all\n"
        f"user {name} on #{hashed} ~outgrow:{name}:session:* resetchannels -@all {COMMANDS}\n"
    )


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

"""PostgreSQL's own recovery: a copy, the log from there on, and a server that stops at one moment."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from outgrow import endpoints
from outgrow.backups import examining
from outgrow.backups.history import History
from outgrow.cluster.state import State
from outgrow.engines.postgres.postgres import ADMIN, PORT, REPLICATION, find, parameters, room_for
from outgrow.engines.postgres.scram import verifier
from outgrow.errors import FleetError
from outgrow.supervisor import orphans, process
from outgrow.topology import Topology

RECOVERED_WITHIN_S = 24 * 3600.0
LOOK_S = 0.1
STOP_WITHIN_S = 120.0
HOST_NUMBER = 249
"""Of the emulated host on which a database recovers."""

NOBODY = "host all all 0.0.0.0/0 reject\n"
APPLICATION = "host all all 127.0.0.0/8 scram-sha-256\n"
"""Who may come in, in the words of pg_hba.conf."""

ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a program that must not outlive whoever has started it."""

_LAST = re.compile(r"last completed transaction was at log time (\S+ \S+)")
_TOO_LATE = "recovery ended before configured recovery target was reached"


def unpack(place: Path, target: Path) -> None:
    """The copy at `place` as a data directory. Raises VerificationFailed when it is damaged."""
    examining.examine(place)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    for name, into in (("base.tar.gz", target), ("pg_wal.tar.gz", target / "pg_wal")):
        with tarfile.open(place / name) as tar:
            tar.extractall(into, filter=_ours)  # noqa: S202, the filter keeps it inside


def _ours(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Whoever it belonged to, it is to belong to whoever restores it."""
    return tarfile.tar_filter(member, path).replace(uid=None, gid=None, uname=None, gname=None)  # type: ignore[arg-type]


class Recovery:
    """A server of its own on an unpacked copy, with the log of this line. `access` says who may come in."""

    def __init__(
        self, state: State, topology: Topology, line: History, data: Path, host: str, access: str = NOBODY
    ) -> None:
        self._state, self._line, self._data = state, line, data
        self._programs = find(topology.database.programs).programs
        self._settings = parameters(room_for(topology))
        self._host, self._access = host, access
        self._log = state.logs / "restore.log"

    @asynccontextmanager
    async def recovered(self, moment: float | None) -> AsyncIterator[str]:
        """The server serves within the block, as it was at that moment or, with None, at the log's end.

        What is given is when its last transaction was. Raises FleetError with what PostgreSQL said.
        """
        self._configure(moment)
        (self._data / "recovery.signal").touch()
        async with self._server() as server:
            if await self._until_up(server):
                yield self._last()
                return
        if moment is None or _TOO_LATE not in self._said():
            raise FleetError(f"the database did not recover: {self._last_words()}", hint=f"see {self._log}")
        # Nothing was committed after that moment: the end of the log is how it was then.
        async with self.recovered(None) as last:
            yield last

    def _configure(self, moment: float | None) -> None:
        access = self._data / "hba-restore.conf"
        access.write_text(self._access)
        python, wal = shlex.quote(sys.executable), shlex.quote(str(self._line.wal))
        settings: dict[str, object] = {
            **self._settings,
            "listen_addresses": self._host,
            "port": PORT,
            "hba_file": access,
            "hot_standby": "off",
            "restore_command": f"{python} -m outgrow.backups.fetch {wal} %f %p",
            "recovery_target_action": "promote",
        }
        if moment is not None:
            settings["recovery_target_time"] = datetime.fromtimestamp(moment, UTC).isoformat()
        lines = [f"{key} = '{str(value).replace(chr(39), chr(39) * 2)}'" for key, value in settings.items()]
        (self._data / "restore.conf").write_text("\n".join([*lines, ""]))

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[process.Process]:
        argv = [*process.unprivileged(), *ENDS_WITH_US, str(self._programs / "postgres")]
        argv += ["-D", str(self._data), "-c", f"config_file={self._data / 'restore.conf'}"]
        self._log.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            server = process.start(argv, {**os.environ, orphans.MARK: self._state.fleet}, output=log)
        try:
            yield server
        finally:
            await asyncio.shield(server.stop("INT", STOP_WITHIN_S))

    async def _until_up(self, server: process.Process) -> bool:
        async with asyncio.timeout(RECOVERED_WITHIN_S):
            while server.running:
                if await asyncio.to_thread(self._accepts):
                    return True
                await asyncio.sleep(LOOK_S)
        return False

    def _accepts(self) -> bool:
        ready = [str(self._programs / "pg_isready"), "--host", self._host, "--port", str(PORT), "--quiet"]
        return subprocess.run(ready, check=False).returncode == 0

    def set_passwords(self) -> None:
        """Of the superuser and of the replicas, which may have had others when the copy was made."""
        known = endpoints.read_secrets(self._state.placement().operator_secrets).passwords
        argv = [*process.unprivileged(), str(self._programs / "postgres"), "--single", "-D", str(self._data)]
        argv += ["-c", f"config_file={self._data / 'restore.conf'}"]
        argv += ["-c", "log_min_error_statement=panic", "postgres"]
        roles = {ADMIN: known["admin"], REPLICATION: known["replication"]}
        statements = "".join(
            f"ALTER ROLE {role} PASSWORD '{verifier(role, password)}'\n" for role, password in roles.items()
        )
        done = subprocess.run(argv, input=statements, capture_output=True, text=True, check=False)
        if done.returncode or "ERROR" in done.stderr:
            raise FleetError(f"the passwords cannot be set: {done.stderr.strip()[-300:]}")
        for name in ("restore.conf", "hba-restore.conf"):
            (self._data / name).unlink()

    def _last(self) -> str:
        found = _LAST.findall(self._said())
        return found[-1] if found else ""

    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def _last_words(self) -> str:
        return " ".join(line for line in self._said().splitlines()[-4:] if "FATAL" in line or "ERROR" in line)

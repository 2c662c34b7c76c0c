"""A database as it was at a moment: a copy, the log from there on, and PostgreSQL's own recovery.

choose ─► unpack ─► recover, up to the moment ─► our passwords ─► exchange ─► another line begins
                     a server that nobody can reach    │
                                                       └ one rename: the data of before stands beside it
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from outgrow import endpoints
from outgrow.backups import examining, history
from outgrow.backups.history import History
from outgrow.cluster.state import State
from outgrow.engines.backup import folder
from outgrow.engines.postgres import ADMIN, PORT, find, parameters, room_for
from outgrow.engines.scram import verifier
from outgrow.errors import FleetError, Misuse
from outgrow.supervisor import orphans, process
from outgrow.topology import Topology

RECOVERED_WITHIN_S = 24 * 3600.0
LOOK_S = 0.1
STOP_WITHIN_S = 120.0
HOST_NUMBER = 249
"""Of the emulated host on which the database recovers."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
_LAST = re.compile(r"last completed transaction was at log time (\S+ \S+)")
_TOO_LATE = "recovery ended before configured recovery target was reached"

Tell = Callable[[str], None]


class Restored(NamedTuple):
    """`last` is when the last transaction was that is in it, as PostgreSQL says; "" when there was none."""

    copy: str
    last: str
    aside: Path | None


async def restore(directory: Path, topology: Topology, moment: float | None, *, tell: Tell) -> Restored:
    """Put the database of a stopped fleet back to that moment, or to the newest that there is.

    Raises Misuse, FleetBusy while the fleet runs, FleetError; the data is as it was then.
    """
    _require_alone(topology)
    state = State(directory)
    line, copy = history.chosen(history.histories(folder(topology, state.application)), moment)
    with state.locked():
        await asyncio.to_thread(orphans.end, state.marked())  # of a fleet or a restore that was killed
        state.keep_secrets(topology)
        data = state.placement().data / "postgres"
        making = data.with_name("postgres.restoring")
        recovery = _Recovery(state, topology, making, line)
        tell(f"unpacking the copy of {history.at(copy.ended)}")
        await asyncio.to_thread(_unpack, line.place(copy.name), making)
        tell(f"reading the write-ahead log up to {history.at(moment) if moment else 'its end'}")
        last = await recovery.run(moment)
        await asyncio.to_thread(recovery.set_password)
        aside = await asyncio.to_thread(_exchange, making, data)
        history.begin(line.folder.parent, line.about.system)
    return Restored(copy.name, last, aside)


def _require_alone(topology: Topology) -> None:
    if topology.database.engine != "postgres" or topology.database.url is not None:
        raise Misuse("the database at this stage is none that the fleet backs up", hint="docs/backups.md")
    if topology.database.copies:
        raise Misuse(
            "a database with replicas cannot be restored in place by this version",
            hint="write replicas = 0 under [database] and restore; docs/backups.md says how they come again",
        )


def _unpack(place: Path, target: Path) -> None:
    examining.examine(place)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    for name, into in (("base.tar.gz", target), ("pg_wal.tar.gz", target / "pg_wal")):
        with tarfile.open(place / name) as tar:
            tar.extractall(into, filter=_ours)  # noqa: S202, the filter keeps it inside


def _ours(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Whoever it belonged to, it is to belong to whoever restores it."""
    return tarfile.tar_filter(member, path).replace(uid=None, gid=None, uname=None, gname=None)  # type: ignore[arg-type]


class _Recovery:
    """A server on an address of its own, which lets nobody in."""

    def __init__(self, state: State, topology: Topology, data: Path, line: History) -> None:
        self._state, self._topology, self._data, self._line = state, topology, data, line
        self._programs = find(topology.database.programs).programs
        self._host = state.free_host((HOST_NUMBER, PORT))
        self._log = state.logs / "restore.log"

    async def run(self, moment: float | None) -> str:
        """Recover. Returns when the last transaction was. Raises FleetError with what PostgreSQL said."""
        self._configure(moment)
        (self._data / "recovery.signal").touch()
        reached = await self._until_up()
        if not reached and moment is not None and _TOO_LATE in self._said():
            # Nothing was committed after that moment: the end of the log is how it was then.
            return await self.run(None)
        if not reached:
            raise FleetError(f"the database did not recover: {self._last_words()}", hint=f"see {self._log}")
        found = _LAST.findall(self._said())
        return found[-1] if found else ""

    def _configure(self, moment: float | None) -> None:
        (self._data / "hba-restore.conf").write_text("host all all 0.0.0.0/0 reject\n")
        python, wal = shlex.quote(sys.executable), shlex.quote(str(self._line.wal))
        settings: dict[str, object] = {
            **parameters(room_for(self._topology)),
            "listen_addresses": self._host,
            "port": PORT,
            "hba_file": self._data / "hba-restore.conf",
            "hot_standby": "off",
            "restore_command": f"{python} -m outgrow.backups.fetch {wal} %f %p",
            "recovery_target_action": "promote",
            **(
                {"recovery_target_time": datetime.fromtimestamp(moment, UTC).isoformat()}
                if moment is not None
                else {}
            ),
        }
        lines = [f"{key} = '{str(value).replace(chr(39), chr(39) * 2)}'" for key, value in settings.items()]
        (self._data / "restore.conf").write_text("\n".join([*lines, ""]))

    async def _until_up(self) -> bool:
        argv = [*process.unprivileged(), str(self._programs / "postgres"), "-D", str(self._data)]
        argv += ["-c", f"config_file={self._data / 'restore.conf'}"]
        self._log.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            server = process.start(argv, {**os.environ, orphans.MARK: self._state.fleet}, output=log)
        try:
            async with asyncio.timeout(RECOVERED_WITHIN_S):
                while server.running:
                    if await asyncio.to_thread(self._accepts):
                        return True
                    await asyncio.sleep(LOOK_S)
            return False
        finally:
            await server.stop("INT", STOP_WITHIN_S)

    def _accepts(self) -> bool:
        ready = [str(self._programs / "pg_isready"), "--host", self._host, "--port", str(PORT), "--quiet"]
        return subprocess.run(ready, check=False).returncode == 0

    def set_password(self) -> None:
        """Of the fleet's superuser, which may have had another one when the copy was made."""
        password = endpoints.read_secrets(self._state.placement().operator_secrets).passwords["admin"]
        argv = [*process.unprivileged(), str(self._programs / "postgres"), "--single", "-D", str(self._data)]
        argv += [
            "-c",
            f"config_file={self._data / 'restore.conf'}",
            "-c",
            "log_min_error_statement=panic",
            "postgres",
        ]
        statement = f"ALTER ROLE {ADMIN} PASSWORD '{verifier(ADMIN, password)}'\n"
        done = subprocess.run(argv, input=statement, capture_output=True, text=True, check=False)
        if done.returncode or "ERROR" in done.stderr:
            raise FleetError(f"the password of {ADMIN} cannot be set: {done.stderr.strip()[-300:]}")
        for name in ("restore.conf", "hba-restore.conf"):
            (self._data / name).unlink()

    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def _last_words(self) -> str:
        return " ".join(line for line in self._said().splitlines()[-4:] if "FATAL" in line or "ERROR" in line)


def _exchange(made: Path, data: Path) -> Path | None:
    """The restored data takes the place of the other in one step; that one is kept beside it."""
    if not data.exists():
        made.rename(data)
        return None
    kept = data.with_name(f"postgres.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(made), os.fsencode(data)
    if libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_EXCHANGE):
        raise FleetError(f"{made} cannot take the place of {data}: {os.strerror(ctypes.get_errno())}")
    made.rename(kept)
    return kept

"""What a fleet keeps in its directory, .outgrow/:

supervisor.lock         held (flock) by the supervisor while it runs; the kernel lets go when it dies
state.json              the children by pid and start time, to find them again after a crash; releases
autoscale.json          what the autoscaler sees; backups.json: how the backups stand
endpoints.json          where everything is, for the application; stays as it was when the fleet ends
secrets.json            the application's secrets, made once        } mode 0600
operator-secrets.json   passwords of roles that can change schemas  }
control.sock            status and down
logs/ data/             one log a node; what outlives the fleet
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from outgrow import endpoints
from outgrow.cluster.status import Autoscaling, Backups
from outgrow.endpoints import Endpoints, Secrets
from outgrow.engines import Placement
from outgrow.engines.redis.cache import OPERATOR_ROLE
from outgrow.errors import FleetBusy, FleetError, StateUnreadable
from outgrow.supervisor import orphans, ports
from outgrow.supervisor.orphans import Note
from outgrow.topology import Topology
from outgrow.workload import Address

FOLDER = ".outgrow"
REPLICAS_ROLES = ("replication", "patroni")
"""Whose passwords a database with replicas needs beside the usual ones."""

APPLICATIONS_ROLES = ("*", "sessions", "cache", "changes")
"""Whose passwords the application gets."""

SOCKET_PATH_MAX = 100
"""sun_path of a Unix socket holds 108 bytes (unix(7))."""


class Kept(msgspec.Struct):
    """state.json. Notes of another boot of the machine mean nothing.

    `scaled`: where outgrow.toml says so many servers, so many ran last, since the autoscaler wanted them.
    `releases` are those that have run, the present one last.
    """

    version: int = 1
    epoch: int = 0
    boot: str = ""
    notes: dict[str, Note] = {}
    scaled: tuple[int, int] = (0, 0)
    releases: tuple[int, ...] = ()


class State:
    """The fleet's folder in an application's directory."""

    def __init__(self, directory: Path) -> None:
        self.application = directory.resolve()
        self.folder = self.application / FOLDER
        self.fleet = hashlib.sha256(os.fsencode(self.application)).hexdigest()[:16]
        self.logs = self.folder / "logs"
        self.epoch = 0
        self.notes: dict[str, Note] = {}
        self.scaled = (0, 0)
        self.releases: tuple[int, ...] = ()
        self._file = self.folder / "state.json"
        self._lock = self.folder / "supervisor.lock"
        self._autoscale = self.folder / "autoscale.json"
        self._backups = self.folder / "backups.json"

    def placement(self, host: str = "127.0.0.1") -> Placement:
        """Where its nodes live."""
        return Placement(self.application, self.folder, host)

    @property
    def control(self) -> Path:
        """The control socket; in a folder of its own where the path would be too long for one."""
        usual = self.folder / "control.sock"
        if len(os.fsencode(usual)) <= SOCKET_PATH_MAX:
            return usual
        return Path(f"/tmp/outgrow-{os.getuid()}") / f"{self.fleet}.sock"  # noqa: S108, made 0700 and checked

    def create(self) -> None:
        """Make the folders. Raises FleetError where this user may not write."""
        try:
            for folder in (self.folder, self.logs, self.folder / "data"):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._make_socket_folder()
        except OSError as error:
            raise FleetError(
                f"{error.filename} cannot be written: {error.strerror}",
                hint=f"a fleet keeps logs and data in {self.folder}: let this user write there",
            ) from None

    def _make_socket_folder(self) -> None:
        folder = self.control.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder != self.folder and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
            raise FleetError(f"{folder} belongs to another user", hint="use a directory with a shorter path")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only supervisor here. Raises FleetBusy, or FleetError where it may not write."""
        self.create()
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise FleetError(
                f"{self._lock} cannot be written: {error.strerror}",
                hint=f"a fleet keeps logs and data in {self.folder}: let this user write there",
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FleetBusy(str(self.application), _pid_in(descriptor)) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """The pid of the supervisor that runs now (0 if it has not told it yet), or None."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(descriptor) or 0
        finally:
            os.close(descriptor)
        return None

    def note(self, notes: Mapping[str, Note]) -> None:
        """Remember these children."""
        self.notes = dict(notes)
        self._keep(Kept(1, self.epoch, orphans.boot_id(), self.notes, self.scaled, self.releases))

    def orphans(self) -> list[Note]:
        """Children of a supervisor that is gone and that still run. Raises StateUnreadable."""
        kept = self._kept()
        self.epoch, self.scaled, self.releases = kept.epoch, kept.scaled, kept.releases
        notes = kept.notes if kept.boot == orphans.boot_id() else {}
        return orphans.find(self.fleet, notes.values())

    def ran(self) -> tuple[int, ...]:
        """The releases that have run, the present one last. Raises StateUnreadable."""
        return self._kept().releases

    def next_epoch(self, published: int) -> int:
        """One more than the last that `orphans` has found, and than the one that a growth has published."""
        self.epoch = max(self.epoch, published) + 1
        return self.epoch

    def _kept(self) -> Kept:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (msgspec.DecodeError, OSError) as error:
            raise StateUnreadable(
                f"{self._file} is damaged: {error}",
                hint="`outgrow down` ends what is left of this fleet and removes the file",
            ) from None

    def _keep(self, kept: Kept) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.replace(self._file)

    def marked(self) -> list[Note]:
        """The same without state.json: what carries the fleet's mark."""
        return orphans.find(self.fleet, ())

    def ended(self) -> None:
        """The fleet has ended: nobody is to look for it any more."""
        self.control.unlink(missing_ok=True)
        self.note({})

    def published(self) -> Endpoints | None:
        """The document of the fleet that runs or has run last, if there was one."""
        path = self.placement().endpoints
        return endpoints.read(path) if path.exists() else None

    def show(self, autoscaling: Autoscaling) -> None:
        """What the autoscaler sees now. Written every second, so it does not wait for the disk."""
        temporary = self._autoscale.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(autoscaling))
        temporary.replace(self._autoscale)

    def shown(self) -> Autoscaling | None:
        """The same, read; None when there is none."""
        try:
            return msgspec.json.decode(self._autoscale.read_bytes(), type=Autoscaling)
        except (OSError, msgspec.DecodeError):
            return None

    def show_backups(self, backups: Backups) -> None:
        """How they stand now. Written every second, so it does not wait for the disk."""
        temporary = self._backups.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(backups))
        temporary.replace(self._backups)

    def shown_backups(self) -> Backups | None:
        """The same, read; None when there is none."""
        try:
            return msgspec.json.decode(self._backups.read_bytes(), type=Backups)
        except (OSError, msgspec.DecodeError):
            return None

    @property
    def growth(self) -> Path:
        """Where a growing application keeps its journal."""
        return self.folder / "growth"

    def growing(self) -> bool:
        """Whether a move has begun and neither ended nor been undone."""
        return (self.growth / "journal.jsonl").exists()

    def reset(self) -> None:
        """Remove a damaged state.json. The processes of the fleet must have been ended."""
        self._file.unlink(missing_ok=True)

    def keep_secrets(self, topology: Topology) -> None:
        """Make the two files of secrets, or bring them up to date with outgrow.toml."""
        place = self.placement()
        operator, application = _read_or_none(place.operator_secrets), _read_or_none(place.secrets)
        known = operator.passwords if operator is not None else {}
        roles = ["admin"]
        if topology.database.url is None:
            roles += ["migrations", "*"]
        # Once there have been replicas, their data knows these.
        roles += [role for role in REPLICAS_ROLES if role in known or topology.database.copies]
        if topology.backup.directory is not None and "replication" not in roles:
            roles.append("replication")
        if topology.sessions.url is None and (topology.sessions.engine == "redis" or "sessions" in known):
            roles.append("sessions")  # known: sessions may still be on their way out of Redis
        if topology.cache.url is None and (topology.cache.engine == "redis" or "cache" in known):
            roles += ["cache", OPERATOR_ROLE]
        if topology.cache.follow_changes and topology.database.url is None:
            roles.append("changes")
        passwords = {role: known.get(role) or secrets.token_hex(24) for role in roles}
        given = endpoints.passwords_of(topology)
        passwords |= given
        key = application.application if application is not None else secrets.token_hex(32)
        if topology.application.secret is not None:
            key = endpoints.secrets_of(topology.application.secret).application
        _write_changed(place.operator_secrets, operator, Secrets(application=key, passwords=passwords))
        told = (*APPLICATIONS_ROLES, *(role for role in given if role.startswith("cache-")))
        passwords = {role: passwords[role] for role in told if role in passwords}
        _write_changed(place.secrets, application, Secrets(application=key, passwords=passwords))

    def free_host(self, *wanted: tuple[int, int]) -> str:
        """A loopback address for the first node, the same at every start unless another fleet has it.

        `wanted` are numbers of nodes and the port that each needs.
        """
        first = int(self.fleet[:8], 16)
        for fleet in ((first + step) % (64 * 256) for step in range(64)):
            needed = [Address(ports.loopback_host(fleet, node), port) for node, port in wanted]
            if all(ports.is_free(address) for address in needed):
                return ports.loopback_host(fleet, wanted[0][0])
        raise FleetError(
            f"no loopback address has port {wanted[0][1]} free", hint="stop other fleets with `outgrow down`"
        )


def running(directory: Path) -> bool:
    """Whether a fleet of this directory runs."""
    return State(directory).holder() is not None


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 20, 0).decode(errors="replace")
    return int(text) if text.isdigit() else None


def _read_or_none(path: Path) -> Secrets | None:
    return endpoints.read_secrets(path) if path.exists() else None


def _write_changed(path: Path, before: Secrets | None, after: Secrets) -> None:
    if before != after:
        endpoints.write(path, after)

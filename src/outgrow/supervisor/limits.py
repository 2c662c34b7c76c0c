"""How much CPU an emulated host has: one control group of the kernel for each, with a quota.

    /sys/fs/cgroup/cpu/[ours]/outgrow-FLEET-HOST    v1: cpu.cfs_quota_us of cpu.cfs_period_us
    /sys/fs/cgroup/[ours]/outgrow-FLEET-HOST        v2: cpu.max

Processes join when they are spawned and whatever they start is in it, too. The quota counts when the node
is ready: what runs once, at its start, is no measure of how fast a machine serves. Where this user may not
make groups, nothing is limited, and `why_not` says so.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 20_000
"""Short, so that a host at its limit stands still for milliseconds at a time: the usual 100 show in p99."""

QUOTA_US_MIN = 1_000
"""The kernel takes no less (v1 and v2)."""

UNLIMITED_V1, UNLIMITED_V2 = "-1", f"max {PERIOD_US}"
REMOVED_WITHIN_S = 2.0


class Limits:
    """The hosts of one fleet."""

    def __init__(self, fleet: str, root: Path = ROOT) -> None:
        self._prefix = f"outgrow-{fleet}-"
        self._root = root
        self.why_not = ""

    def join(self, host: str, pid: int) -> None:
        """This process and all that it starts belong to that host. Where it cannot be, `why_not` says why."""
        try:
            group = self._made(host)
            for each in _family(pid):
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    (group / "cgroup.procs").write_text(str(each))
        except OSError as error:
            self.why_not = f"{error.filename or self._root}: {error.strerror}"

    def set(self, host: str, cores: float | None) -> None:
        """How many cores the host has from now on; None is no limit."""
        parent = self._parent()
        if parent is None or not (group := parent / f"{self._prefix}{host}").is_dir():
            return
        period = PERIOD_US
        if cores is not None and cores * period < QUOTA_US_MIN:
            period = int(QUOTA_US_MIN / cores)
        try:
            if _is_v1(parent):
                (group / "cpu.cfs_period_us").write_text(str(period))
                quota = UNLIMITED_V1 if cores is None else str(int(cores * period))
                (group / "cpu.cfs_quota_us").write_text(quota)
            else:
                quota = UNLIMITED_V2 if cores is None else f"{int(cores * period)} {period}"
                (group / "cpu.max").write_text(quota)
        except OSError as error:
            self.why_not = f"{error.filename or group}: {error.strerror}"

    def remove(self, host: str | None = None) -> None:
        """The groups of a host, or of every host of the fleet. Their processes must have ended."""
        parent = self._parent()
        if parent is None:
            return
        for group in parent.glob(f"{self._prefix}{host or '*'}"):
            deadline = time.monotonic() + REMOVED_WITHIN_S
            while group.is_dir() and not _removed(group) and time.monotonic() < deadline:
                time.sleep(0.02)

    def _made(self, host: str) -> Path:
        parent = self._parent()
        if parent is None:
            raise OSError(0, "the kernel offers no control group for CPU here", str(self._root))
        if not _is_v1(parent):
            _enable(parent)
        group = parent / f"{self._prefix}{host}"
        group.mkdir(exist_ok=True)
        return group

    def _parent(self) -> Path | None:
        """Where this process's own group is, of the controller that limits CPU."""
        for controllers, place in _own():
            v1 = self._root / "cpu"
            if "cpu" in controllers.split(",") and v1.is_dir():
                return _nearest(v1, place)
        for controllers, place in _own():
            if not controllers and (self._root / "cgroup.controllers").is_file():
                return _nearest(self._root, place)
        return None


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))


def _own() -> Iterator[tuple[str, str]]:
    """Controllers and place of each hierarchy (cgroups(7), /proc/self/cgroup)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        yield controllers, place


def _nearest(root: Path, place: str) -> Path:
    """In a container the place may be told as the machine outside sees it: then the root is ours."""
    found = root / place.lstrip("/")
    return found if found.is_dir() else root


def _is_v1(parent: Path) -> bool:
    return (parent / "cpu.cfs_quota_us").exists() or (parent / "cpu.shares").exists()


def _enable(parent: Path) -> None:
    """Let the groups below have a limit. The kernel refuses it for a group that has processes itself."""
    control = parent / "cgroup.subtree_control"
    if "cpu" not in control.read_text().split():
        control.write_text("+cpu")


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):  # busy: the kernel has not let go of the last process yet
        os.rmdir(group)
    return not group.is_dir()

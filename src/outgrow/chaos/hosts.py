"""The processes of an emulated host (engines/host.py), as the kernel shows them from outside.

supervisor ─► host ─► init ─► Patroni
                        └──► PostgreSQL: set free by Patroni, taken in by init
"""

from __future__ import annotations

from pathlib import Path

from outgrow.cluster import NodeStatus
from outgrow.errors import OutgrowError
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note

POSTMASTER = "bin/postgres -D"
PATRONI = "patroni.run"
RECOVERY = "startup recovering"
"""In the title of the process of a replica that replays the log."""


def inside(host: NodeStatus) -> list[Note]:
    """All of them: the host itself first, then its init. None of one that does not run."""
    pids = _below(host.pid) if host.pid is not None else []
    return [Note(pid, orphans.start_time(pid) or 0) for pid in pids]


def named(host: NodeStatus, text: str) -> Note:
    """The first whose command line, or title, has this text. Raises OutgrowError when there is none."""
    for note in inside(host)[2:]:  # the first two are called like what they have started
        if text in _title(note.pid):
            return note
    raise OutgrowError(f"no process on {host.name} is called {text}", hint=f"`outgrow logs {host.name}`")


def _below(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _below(int(child)))]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""

"""What etcd knows of the database's nodes, as Patroni writes it there. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from outgrow.engines.etcd.client import Entry

LEADER, CONFIG, SYNC = "leader", "config", "sync"
_MEMBERS = "members/"
RUNNING = ("running", "streaming")


class Member(NamedTuple):
    """One node as it told last. `position` is its place in the log, in bytes.

    `confirms`: commits wait for it, as it says itself when it is asked; etcd has that elsewhere.
    """

    name: str
    role: str
    state: str
    timeline: int | None = None
    position: int | None = None
    streaming: bool = False
    confirms: bool = False

    @property
    def serves(self) -> bool:
        """Whether it does what its role says."""
        return self.state in RUNNING and (self.role == "primary" or self.streaming)


class View(NamedTuple):
    """All of them at one moment. `leader` has the lease; `paused`: Patroni only looks on."""

    leader: Entry | None = None
    members: Mapping[str, Member] = {}
    synchronous: frozenset[str] = frozenset()
    paused: bool = False

    @property
    def primary(self) -> Member | None:
        """Who has the lease and accepts writes."""
        found = self.members.get(self.leader.value) if self.leader is not None else None
        return found if found is not None and found.role == "primary" and found.serves else None

    def lag(self, member: Member) -> int | None:
        """Bytes of the log that a replica has not replayed yet."""
        first = self.primary
        if first is None or first.position is None or member.position is None:
            return None
        return max(0, first.position - member.position)


def view(entries: Mapping[str, Entry]) -> View:
    """From the keys below a cluster's. What cannot be read is left out."""
    config, sync = _object(entries.get(CONFIG)), _object(entries.get(SYNC))
    names = str(sync.get("sync_standby") or "").split(",")
    found = (
        member(key.removeprefix(_MEMBERS), _object(entry))
        for key, entry in entries.items()
        if key.startswith(_MEMBERS)
    )
    return View(
        entries.get(LEADER),
        {each.name: each for each in found},
        frozenset(name for name in names if name),
        bool(config.get("pause")),
    )


def member(name: str, told: Mapping[str, Any]) -> Member:
    """A node, from what its Patroni writes into etcd or answers."""
    position = told.get("replay_lsn", told.get("xlog_location"))
    return Member(
        name,
        str(told.get("role", "")),
        str(told.get("state", "")),
        told.get("timeline"),
        position,
        told.get("replication_state") == "streaming",
        bool(told.get("sync_standby") or told.get("quorum_standby")),
    )


def _object(entry: Entry | None) -> dict[str, Any]:
    try:
        found = json.loads(entry.value) if entry is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

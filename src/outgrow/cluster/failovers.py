"""A change of the primary, in its phases and how long each took. It is told what was seen, and when.

detection         the primary is lost ─► its lease is gone
election          ─► another has it
promotion         ─► that one accepts writes
reconfiguration   ─► the other replicas follow it
recovery          ─► the old primary is back, as a replica
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from outgrow.engines.patroni.view import View

PHASES = ("detection", "election", "promotion", "reconfiguration", "recovery")
KEPT_MAX = 20


class Failover(msgspec.Struct, frozen=True):
    """`began` is Unix time; `phases` those that have ended, with their seconds. `planned`: a switchover."""

    began: float
    before: str
    after: str = ""
    reason: str = ""
    planned: bool = False
    phases: dict[str, float] = {}

    @property
    def writes_s(self) -> float | None:
        """From the loss until writes are accepted again."""
        if "promotion" not in self.phases:
            return None
        return sum(self.phases[name] for name in PHASES[:3])


class Failovers:
    """All since the fleet has started.

    Moments are those of a clock that nobody sets (time.monotonic()); `today` tells Unix time.
    """

    def __init__(self, today: Callable[[], float] = time.time) -> None:
        self._today = today
        self._kept: deque[Failover] = deque(maxlen=KEPT_MAX)
        self._primary = ""
        self._since = 0.0

    @property
    def kept(self) -> tuple[Failover, ...]:
        """The oldest first."""
        return tuple(self._kept)

    @property
    def under_way(self) -> bool:
        """Whether writes are not accepted yet, or replicas do not follow."""
        return bool(self._kept) and "reconfiguration" not in self._kept[-1].phases

    def lost(self, at: float, name: str, reason: str, *, planned: bool = False) -> None:
        """This node has ended, or is about to. It counts when it was the primary."""
        if name == self._primary and not self.under_way:
            self._begin(at, reason, planned)

    def seen(self, at: float, view: View) -> None:
        """How it looks now."""
        holder = view.leader.value if view.leader is not None else ""
        if self.under_way:
            self._go_on(at, view, holder)
        elif self._primary and holder != self._primary:
            self._begin(at, "its lease is gone", planned=False)
            self._go_on(at, view, holder)
        else:
            self._primary = view.primary.name if view.primary is not None else self._primary
        self._recover(at, view)

    def _begin(self, at: float, reason: str, planned: bool) -> None:
        self._kept.append(Failover(self._today(), self._primary, reason=reason, planned=planned))
        self._since = at

    def _go_on(self, at: float, view: View, holder: str) -> None:
        now = self._kept[-1]
        if "detection" not in now.phases and holder != now.before:
            now = self._passed("detection", at)
        if "detection" not in now.phases:
            if view.primary is not None and now.reason and at - self._since > RETURNED_S:
                self._kept.pop()  # it has come back before anybody noticed
            return
        if "election" not in now.phases and holder:
            now = self._passed("election", at, after=holder)
        if "election" in now.phases and "promotion" not in now.phases and view.primary is not None:
            now = self._passed("promotion", at, after=view.primary.name)
            self._primary = view.primary.name
        if "promotion" in now.phases and _all_follow(view, now.before):
            self._passed("reconfiguration", at)

    def _recover(self, at: float, view: View) -> None:
        if not self._kept or "reconfiguration" not in self._kept[-1].phases:
            return
        now = self._kept[-1]
        old = view.members.get(now.before)
        back = now.after == now.before or (old is not None and old.serves and old.role != "primary")
        if "recovery" not in now.phases and back:
            self._passed("recovery", at)

    def _passed(self, phase: str, at: float, after: str = "") -> Failover:
        now = self._kept[-1]
        phases = {**now.phases, phase: round(at - self._since, 3)}
        self._since = at
        self._kept[-1] = msgspec.structs.replace(now, phases=phases, after=after or now.after)
        return self._kept[-1]


RETURNED_S = 3.0
"""A primary that still has its lease, and serves, so long after its end: it was there again at once."""


def _all_follow(view: View, before: str) -> bool:
    """Every replica but the old primary streams on the new timeline."""
    first = view.primary
    if first is None:
        return False
    others = [each for each in view.members.values() if each.name not in (first.name, before)]
    return all(each.serves and each.timeline == first.timeline for each in others)

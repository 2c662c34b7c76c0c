"""How many application servers are wanted: decided from figures and a clock that are given. No I/O.

    figures of each server ─► a demand for each target ─► the largest ─► what was wanted meanwhile (windows)
      ─► at most a step in a cool-down ─► minimum and maximum ─► servers

The algorithm is that of Kubernetes' HorizontalPodAutoscaler (autoscaling/v2), so that the same settings
mean the same there. Where a figure is missing it is more careful: nothing goes then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from outgrow.topology.model import Autoscale

ROUNDING = 1e-9
"""Three servers at exactly their target are three, whatever binary fractions make of it."""


class Load(NamedTuple):
    """What a server does: the share of its cores that it uses, and requests under way. None: unknown."""

    cpu: float | None = None
    in_flight: float | None = None


class Look(NamedTuple):
    """All servers at one moment, in seconds of any clock. `p95` is that of all of them, in seconds.

    A server that does not answer, or has just started, has the empty Load.
    """

    at: float
    servers: Mapping[str, Load]
    p95: float | None = None


class Decision(NamedTuple):
    """How many servers there are to be, and why."""

    wanted: int
    reason: str


class Demand(NamedTuple):
    """What one target asks for. `known`: its figure is there for every server."""

    wanted: int
    reason: str
    known: bool = True


def demands(settings: Autoscale, look: Look) -> tuple[Demand, ...]:
    """What each target that is set asks for."""
    found = []
    if settings.cpu is not None:
        cpu = {name: load.cpu for name, load in look.servers.items()}
        found.append(_average("CPU", cpu, settings.cpu, settings.tolerance, "{:.0%}"))
    if settings.in_flight is not None:
        under_way = {name: load.in_flight for name, load in look.servers.items()}
        found.append(_average("in flight", under_way, settings.in_flight, settings.tolerance, "{:.3g}"))
    if settings.p95 is not None:
        told_by_all = all(load.in_flight is not None for load in look.servers.values())
        found.append(_shared(look, settings.p95, settings.tolerance, known=told_by_all))
    return tuple(found)


def _average(
    name: str, values: Mapping[str, float | None], target: float, tolerance: float, form: str
) -> Demand:
    """As many as bring the servers' average to the target. Who is not known counts nothing when more are
    wanted, and nothing goes while there is such a one."""
    known = [value for value in values.values() if value is not None]
    count, missing = len(values), len(values) - len(known)
    if not known:
        return Demand(count, f"{name} is not known", known=False)
    told = _told(name, sum(known) / len(known), target, form)
    if missing:
        told += f", {missing} of {count} servers not known"
    if _near(sum(known) / len(known) / target, tolerance) or _near(sum(known) / target / count, tolerance):
        return Demand(count, told, not missing)
    wanted = _ceil(sum(known) / target)
    return Demand(max(count, wanted) if missing else wanted, told, not missing)


def _shared(look: Look, target: float, tolerance: float, *, known: bool) -> Demand:
    """In proportion to what all servers have together. Without a request nobody waits."""
    count, value = len(look.servers), look.p95
    if value is None:
        return Demand(1 if known else count, "p95 without a request" if known else "p95 is not known", known)
    told = _told("p95", value * 1000, target * 1000, "{:.3g} ms")
    return Demand(count if _near(value / target, tolerance) else _ceil(count * value / target), told, known)


def _near(ratio: float, tolerance: float) -> bool:
    return abs(ratio - 1) <= tolerance + ROUNDING


def _ceil(servers: float) -> int:
    return max(1, math.ceil(servers - ROUNDING))


def _told(name: str, value: float, target: float, form: str) -> str:
    return f"{name} {form.format(value)} of a target of {form.format(target)}"


class Autoscaler:
    """Decides, look by look. `scaled` tells it what was done."""

    def __init__(self, settings: Autoscale) -> None:
        self.settings = settings
        self._wished: deque[tuple[float, int]] = deque()
        self._scaled: deque[tuple[float, int]] = deque()

    def decide(self, look: Look) -> Decision:
        """How many servers from now on. Looks must come in the order of their time."""
        settings, count = self.settings, len(look.servers)
        if not settings.minimum <= count <= settings.maximum:
            reason = f"from {settings.minimum} to {settings.maximum} servers are allowed"
            return Decision(_within(settings, count), reason)
        wish, reason = self._wish(look)
        steadied = self._steadied(look.at, count, _within(settings, wish))
        wanted = _within(settings, self._stepwise(look.at, count, steadied))
        if wanted == count != wish:
            reason += self._why_not(count, wish)
        return Decision(wanted, reason)

    def _wish(self, look: Look) -> tuple[int, str]:
        """The largest demand. As long as a figure is missing, no fewer than there are."""
        asked = demands(self.settings, look)
        largest = max(asked, key=lambda each: each.wanted)
        unknown = next((each for each in asked if not each.known), None)
        if unknown is not None and largest.wanted < len(look.servers):
            return len(look.servers), unknown.reason
        return largest.wanted, largest.reason

    def scaled(self, at: float, before: int, after: int) -> None:
        """So many servers became so many at that time."""
        self._scaled.append((at, after - before))

    def _steadied(self, now: float, count: int, wish: int) -> int:
        """More only if more was wanted all through the window for that; fewer likewise."""
        out_window, in_window = self.settings.out_window or 0.0, self.settings.in_window
        if not self._wished:  # what was there before is what somebody had wanted
            self._wished.append((now, count))
        while self._wished and self._wished[0][0] < now - max(out_window, in_window):
            self._wished.popleft()
        lately = [wanted for at, wanted in self._wished if out_window and at >= now - out_window]
        least = min([wish, *lately])
        most = max([wish, *(wanted for at, wanted in self._wished if at >= now - in_window)])
        self._wished.append((now, wish))
        return max(least, min(count, most))

    def _stepwise(self, now: float, count: int, wanted: int) -> int:
        """No further than a step from what there was when the cool-down began."""
        while self._scaled and self._scaled[0][0] <= now - self.settings.cool_down:
            self._scaled.popleft()
        came = sum(by for _, by in self._scaled if by > 0)
        went = sum(-by for _, by in self._scaled if by < 0)
        if wanted > count:
            return min(wanted, count + max(0, self.settings.step - came))
        return max(wanted, count - max(0, self.settings.step - went))

    def _why_not(self, count: int, wish: int) -> str:
        if count == self.settings.maximum and wish > count:
            return f"; {wish} would be wanted, beyond the maximum"
        if count == self.settings.minimum and wish < count:
            return ""
        return f"; {wish} are wanted, in their time"


def _within(settings: Autoscale, servers: int) -> int:
    return min(max(servers, settings.minimum), settings.maximum)

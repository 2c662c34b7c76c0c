"""The balancers' view of the servers, from their admin sockets, which only the fleet's user can open."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from outgrow.dashboard.snapshot import Balanced
from outgrow.engines.envoy import figures as envoy_figures
from outgrow.engines.envoy.envoy import ADMIN
from outgrow.engines.envoy.figures import Figures, ServerFigures, State

LOOK_WITHIN_S = 0.7
_ORDER: tuple[State, ...] = ("healthy", "draining", "ejected", "unhealthy")


class Look(NamedTuple):
    """One look at every balancer that answered."""

    at: float
    figures: dict[str, Figures]


class Balancers:
    """What they have said in the last few seconds. `folder` holds a folder for each."""

    def __init__(self, folder: Path, *, looks: int) -> None:
        self._folder = folder
        self._looks: deque[Look] = deque(maxlen=looks)

    async def look(self, names: Collection[str]) -> None:
        """Ask these. One that does not answer says nothing."""
        at = time.monotonic()
        told = await asyncio.gather(*(self._ask(name) for name in names))
        found = {name: each for name, each in zip(names, told, strict=True) if each is not None}
        self._looks.append(Look(at, found))

    @property
    def answer(self) -> bool:
        """Whether any of them answered the last time."""
        return bool(self._looks and self._looks[-1].figures)

    def rate(self, name: str) -> float | None:
        """Requests a second that one of them has got; None when it is not known yet."""
        counts = [
            (look.at, each.requests) for look in self._looks if (each := look.figures.get(name)) is not None
        ]
        return _rates(counts)

    def connections(self, name: str) -> int | None:
        """How many clients have a connection to it."""
        figures = self._looks[-1].figures.get(name) if self._looks else None
        return None if figures is None else figures.connections

    def servers(self) -> dict[str, Balanced]:
        """Each server that they know, by its name: all balancers and pools together."""
        if not self._looks:
            return {}
        newest = list(_of(self._looks[-1]))
        names = dict.fromkeys(name for name, _ in newest)
        found = {name: self._server(name, [each for n, each in newest if n == name]) for name in names}
        whole = sum(each.rate or 0.0 for each in found.values())
        if not whole:
            return found
        return {
            name: msgspec.structs.replace(each, share=(each.rate or 0.0) / whole)
            for name, each in found.items()
        }

    def _server(self, name: str, newest: list[ServerFigures]) -> Balanced:
        sums = [(look.at, [each for n, each in _of(look) if n == name]) for look in self._looks]
        known = [(at, each) for at, each in sums if each]
        return Balanced(
            pool=newest[0].pool,
            state=max((each.state for each in newest), key=_ORDER.index),
            share=None,
            rate=_rates([(at, sum(each.requests for each in figures)) for at, figures in known]),
            failed=_rates([(at, sum(each.failed for each in figures)) for at, figures in known]),
            under_way=sum(each.under_way for each in newest),
            connections=sum(each.connections for each in newest),
            weight=newest[0].weight,
        )

    async def _ask(self, name: str) -> Figures | None:
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                return await asyncio.to_thread(envoy_figures.figures, self._folder / name / ADMIN)
        except (OSError, HTTPException, msgspec.DecodeError, KeyError, ValueError):
            return None


def _of(look: Look) -> Iterator[tuple[str, ServerFigures]]:
    for figures in look.figures.values():
        for server in figures.servers:
            yield server.name, server


def _rates(counts: Iterable[tuple[float, int]]) -> float | None:
    """A second, from counters at moments. They begin anew when a balancer does."""
    known = list(counts)
    if len(known) < 2 or known[-1][0] <= known[0][0]:
        return None
    gone_by = sum(now - before if now >= before else now for (_, before), (_, now) in pairwise(known))
    return gone_by / (known[-1][0] - known[0][0])

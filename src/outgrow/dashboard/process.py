"""One process of the application, as the dashboard sees it: its figures, its health, its slow requests."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Any

import msgspec

from outgrow.advisor import keys, measures
from outgrow.advisor.measures import Figures, Tally, Totals
from outgrow.dashboard.http import Client

TABLES_S = 60
KEPT_EVERY_S = 10.0
KEYS_EVERY = 4
"""Looks from one question for the hot keys to the next: they change slowly."""

LOOK_WITHIN_S = 0.7
"""A process that takes longer is not waited for: the second of all the others must not be late for it."""


class Check(msgspec.Struct, frozen=True):
    """One line of /health/deep."""

    name: str
    ok: bool
    critical: bool = True
    reason: str | None = None


class Health(msgspec.Struct, frozen=True):
    """/health/deep. "unknown": it has no such page, or does not answer."""

    status: str = "unknown"
    checks: list[Check] = []


class Told(msgspec.Struct):
    """/metrics/requests; each request stays the JSON that it is."""

    began: float = 0.0
    last: int = 0
    requests: list[msgspec.Raw] = []


class Process:
    """Looks at one process once a second.

    `figures` are its latest, None while it tells none: no middleware, metrics off, or not answering.
    """

    def __init__(self, node: str, host: str, port: int) -> None:
        self.node = node
        self.address = f"{host}:{port}"
        self.figures: Figures | None = None
        self.health = Health()
        self.keys: list[keys.Told] = []
        self._client = Client(host, port)
        self._totals: Totals | None = None
        self._at = 0.0
        self._told = Told()
        self._kept: deque[tuple[float, bytes]] = deque(maxlen=int(TABLES_S / KEPT_EVERY_S) + 1)
        self._looks = 0

    async def look(self) -> tuple[Tally | None, list[msgspec.Raw]]:
        """What has happened since the last look, and its slow and failed requests since then."""
        self._looks += 1
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                status, body = await self._client.get("/metrics", "application/json")
                if status == 200:
                    tally = self._tally(body)
                    # Each of these every other second: they can wait, and a question costs both sides.
                    if self._looks % 2:
                        await self._look_at_health()
                        if self._looks % KEYS_EVERY == 1:
                            await self._look_at_keys()
                        return tally, []
                    return tally, await self._requests()
                self.figures = None
                await self._look_at_health()
        except (OSError, msgspec.DecodeError):
            self.figures, self.health, self.keys = None, Health(), []
        return None, []

    def before(self) -> tuple[Figures, float] | None:
        """The figures of about a minute ago and how many seconds ago that was."""
        if not self._kept:
            return None
        at, body = self._kept[0]
        return measures.read(body), max(0.001, self._at - at)

    def close(self) -> None:
        """Look no more."""
        self._client.close()

    def _tally(self, body: bytes) -> Tally | None:
        now, figures = monotonic(), measures.read(body)
        totals = measures.totals(figures)
        tally = None
        if self._totals is not None:
            if self._totals.started != totals.started:
                self._kept.clear()
            tally = measures.since(totals, self._totals, now - self._at)
        if not self._kept or now - self._kept[-1][0] >= KEPT_EVERY_S:
            self._kept.append((now, body))
        self.figures, self._totals, self._at = figures, totals, now
        return tally

    async def _requests(self) -> list[msgspec.Raw]:
        told = self._told
        status, body = await self._client.get(f"/metrics/requests?began={told.began!r}&after={told.last}")
        if status != 200:
            return []
        self._told = msgspec.json.decode(body, type=Told)
        requests, self._told.requests = self._told.requests, []
        return requests

    async def _look_at_health(self) -> None:
        _, body = await self._client.get("/health/deep")
        try:
            self.health = msgspec.json.decode(body, type=Health)
        except msgspec.DecodeError:  # the application's own page, if it has one
            self.health = Health()

    async def _look_at_keys(self) -> None:
        status, body = await self._client.get("/metrics/keys")
        self.keys = keys.read(body) if status == 200 else []


async def look_at_all(processes: list[Process]) -> list[tuple[Process, Tally | None, list[msgspec.Raw]]]:
    """All at once: one that hangs holds up nobody for longer than its own time."""
    found: list[Any] = await asyncio.gather(*(process.look() for process in processes))
    return [(process, *each) for process, each in zip(processes, found, strict=True)]

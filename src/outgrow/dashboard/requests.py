"""The slow and failed requests of the whole fleet: the last 10,000, each as the JSON that a process told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

KEPT_MAX = 10_000
BYTES_MAX = 8 * 1024 * 1024
"""Their JSON together: with long paths and many parts fewer are kept."""


class Head(msgspec.Struct):
    """What is needed of a request to choose it."""

    reason: str
    method: str
    route: str
    path: str
    ms: float
    status: int


class Entry(NamedTuple):
    """One request. `searched` is what a search looks through, in lower case."""

    id: int
    reason: str
    ms: float
    searched: str
    body: bytes


class Page(NamedTuple):
    """Some requests of those that were asked for: the total of those, and the newest known id."""

    total: int
    newest: int
    bodies: list[bytes]

    def as_json(self) -> bytes:
        """{"total", "newest", "requests": [...]}"""
        return b'{"total":%d,"newest":%d,"requests":[%s]}' % (self.total, self.newest, b",".join(self.bodies))


class Requests:
    """A bounded store. Ids rise, also when old ones have gone."""

    def __init__(self, *, kept_max: int = KEPT_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries: deque[Entry] = deque()
        self._kept_max, self._bytes_max = kept_max, bytes_max
        self._bytes = 0
        self.newest = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, node: str, told: Iterable[msgspec.Raw]) -> None:
        """Requests of one process, the oldest first."""
        for raw in told:
            head = msgspec.json.decode(raw, type=Head)
            self.newest += 1
            mark = b'{"number":%d,"node":%s,' % (self.newest, msgspec.json.encode(node))
            body = mark + bytes(raw).strip()[1:]
            searched = f"{head.method} {head.route} {head.path} {head.status} {node}".lower()
            self._entries.append(Entry(self.newest, head.reason, head.ms, searched, body))
            self._bytes += len(body)
            self.failed += head.reason == "failed"
        while len(self._entries) > self._kept_max or self._bytes > self._bytes_max:
            gone = self._entries.popleft()
            self._bytes -= len(gone.body)
            self.failed -= gone.reason == "failed"

    def page(
        self,
        *,
        reason: str = "",
        search: str = "",
        order: str = "newest",
        upto: int = 0,
        offset: int = 0,
        limit: int = 50,
    ) -> Page:
        """`limit` requests from `offset` on, of those with this reason that hold every word of `search`.

        `upto` leaves out newer ones, so that pages of a list stay where they are while more come in.
        """
        words = search.lower().split()
        chosen = [
            entry
            for entry in self._entries
            if (not reason or entry.reason == reason)
            and (not upto or entry.id <= upto)
            and all(word in entry.searched for word in words)
        ]
        if order == "slowest":
            chosen.sort(key=lambda entry: entry.ms)
        chosen.reverse()
        return Page(len(chosen), self.newest, [entry.body for entry in chosen[offset : offset + limit]])

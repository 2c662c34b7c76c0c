"""What a session must not fall below, and how it learns of more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from outgrow.chaos.operations import (
    CAUSAL,
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
)
from outgrow.chaos.versions import Seen

Floor = dict[int, int]
"""By line (versions.py): the version below which nothing may fall."""


class Session:
    """What it must not fall below, by what raised it."""

    __slots__ = ("after_reads", "after_writes", "past", "read", "written")

    def __init__(self) -> None:
        self.written: Floor = {}
        self.read: Floor = {}
        self.after_writes: Floor = {}
        self.after_reads: Floor = {}
        self.past: Floor = {}

    def broken(self, kind: str, line: int, version: int) -> Iterator[str]:
        """Which guarantees this version falls below. `past` has everything, so it is asked first."""
        if self.past.get(line, 0) <= version:
            return
        first, second = (
            (READ_YOUR_WRITES, MONOTONIC_READS) if kind == "read" else (MONOTONIC_WRITES, WRITES_FOLLOW_READS)
        )
        found = [first] if self.written.get(line, 0) > version else []
        if self.read.get(line, 0) > version:
            found.append(second)
        if kind == "read" and self.after_writes.get(line, 0) > version:
            found.append(MONOTONIC_WRITES)
        if kind == "read" and self.after_reads.get(line, 0) > version:
            found.append(WRITES_FOLLOW_READS)
        yield from found or [CAUSAL]


class Carried(NamedTuple):
    """What a session knew when it began a write or sent a message: it holds for whoever learns of that."""

    written: Floor
    read: Floor
    past: Floor


def merge(carried: Floor, into: Floor, least: list[int]) -> None:
    """Take over what a later operation may fall below; what none does is dropped from `carried` for good."""
    dead = []
    for line, version in carried.items():
        if version <= least[line]:
            dead.append(line)
        elif version > into.get(line, 0):
            into[line] = version
    for line in dead:
        del carried[line]


def raise_to(floor: Floor, seen: Seen) -> None:
    for line, version in seen.items():
        if version > floor.get(line, 0):
            floor[line] = version

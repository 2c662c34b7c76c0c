"""Finds the operations that prove a violation: the shortest causal chain to the one that fell below.

Backwards from it: what its session had done before; then, of every write that the session had read and every
message that it had received, what that one's session had done before; and so on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from outgrow.chaos.operations import (
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
    Operation,
)
from outgrow.chaos.versions import Versions


class Broken(NamedTuple):
    """The operation `at` this place has seen `version` of a line, and its session knew of a later one.

    Line -1: it is wrong by itself.
    """

    guarantee: str
    at: int
    line: int
    version: int


class _Reached(NamedTuple):
    """A session, up to a place in it, and the chain from there on."""

    session: int
    place: int
    chain: tuple[int, ...]


class Proofs:
    """Of one history, in the order in which its operations ended. `sent` finds a message's sender."""

    def __init__(self, operations: Sequence[Operation], versions: Versions, sent: Mapping[int, int]) -> None:
        self._operations = operations
        self._versions = versions
        self._sent = sent
        self._of_session: dict[int, list[int]] = defaultdict(list)
        self._place: list[int] = []

    def says(self, case: Broken) -> str:
        """In a line."""
        operation = self._operations[case.at]
        if case.line < 0:
            return f"{operation}: {case.guarantee}"
        did = "read" if operation.kind == "read" else "replaced"
        return (
            f"{case.guarantee}: session {operation.session} {did} {operation.key} at version {case.version}"
            f"{' of its line' if operation.key in self._versions.forks else ''}, and knew of a later one"
        )

    def of(self, case: Broken) -> tuple[Operation, ...]:
        """The chain. It is the operation alone where that one is wrong by itself."""
        chain = self._chain(case) if case.line >= 0 else (case.at,)
        return tuple(self._operations[index] for index in dict.fromkeys(chain))

    def _chain(self, case: Broken) -> tuple[int, ...]:
        self._sort()
        operation = self._operations[case.at]
        depth, kind = _shape(case.guarantee, operation.kind)
        explored: dict[int, int] = {}
        level, edge = 0, [_Reached(operation.session, self._place[case.at], (case.at,))]
        while edge:
            for reached in edge:
                if depth in (None, level) and (holder := self._holder(reached, case, kind)) is not None:
                    return (holder, *reached.chain)
            edge = [further for reached in edge for further in self._further(reached, explored)]
            level += 1
        return (case.at,)

    def _sort(self) -> None:
        if not self._place:
            for index, operation in enumerate(self._operations):
                mine = self._of_session[operation.session]
                self._place.append(len(mine))
                mine.append(index)

    def _holder(self, reached: _Reached, case: Broken, kind: str) -> int | None:
        """The latest operation before it by which its session knew the later version."""
        key = self._operations[case.at].key
        for index in reversed(self._of_session[reached.session][: reached.place]):
            each = self._operations[index]
            took_effect = each.outcome == "ok" or index == reached.chain[0]  # its message has arrived
            if each.key == key and took_effect and kind in ("", each.kind):
                version = self._versions.made(index) if each.kind == "write" else each.version
                seen = self._versions.seen(key, each.value, version) or {}
                if seen.get(case.line, 0) > case.version:
                    return index
        return None

    def _further(self, reached: _Reached, explored: dict[int, int]) -> Iterator[_Reached]:
        """From what the session had learned before, to where that came from."""
        begins = explored.get(reached.session, 0)
        explored[reached.session] = max(begins, reached.place)
        for index in reversed(self._of_session[reached.session][begins : reached.place]):
            each = self._operations[index]
            if each.outcome != "ok" or each.kind not in ("read", "receive"):
                continue
            by_message = each.kind == "receive"
            source = self._sent.get(each.message) if by_message else self._versions.writes.get(each.value)
            if source is not None and self._operations[source].session != each.session:
                # The message of a write was sent by its transaction: it tells of that write, too.
                place = self._place[source] + by_message
                yield _Reached(self._operations[source].session, place, (source, index, *reached.chain))


def _shape(guarantee: str, kind: str) -> tuple[int | None, str]:
    """How many sessions away the proof of this guarantee begins, and with what."""
    direct = int(kind == "read")
    shapes: dict[str, tuple[int | None, str]] = {
        READ_YOUR_WRITES: (0, "write"),
        MONOTONIC_READS: (0, "read"),
        MONOTONIC_WRITES: (direct, "write"),
        WRITES_FOLLOW_READS: (direct, "read"),
    }
    return shapes.get(guarantee, (None, ""))

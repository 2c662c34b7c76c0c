"""Decides the session guarantees over a recorded history: which were kept, and what proves that one was not.

After Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994), and causal order over
all sessions. Each is a floor, a version of each key, below which no operation may fall; they differ in what
raises it:

    read your writes        what the session itself has written
    monotonic reads         what it has read
    monotonic writes        what others had written before they wrote what it has read
    writes follow reads     what others had read before they wrote what it has read
    causal order            all of these along any chain, messages included (a bookmark handed over, a queue)

A write falls below when the version that it replaces does: what its session had written, or read, is first.

What a floor holds is forgotten as soon as no later operation of the whole history falls below it, so floors
are as small as what is read is stale: a million operations take seconds. Nothing here looks at a bookmark, a
position or a node.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from outgrow.chaos.floors import Carried, Session, merge, raise_to
from outgrow.chaos.operations import (
    CAUSAL,
    GUARANTEES,
    REAL,
    Operation,
)
from outgrow.chaos.proof import Broken, Proofs
from outgrow.chaos.versions import Seen, Versions

CASES_MAX = 10


class Violation(msgspec.Struct, frozen=True):
    """One operation that broke a guarantee: the last of those that prove it, in their causal order."""

    guarantee: str
    says: str
    operations: tuple[Operation, ...]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """How often each guarantee was broken, and the first cases of each with their proof."""

    operations: int
    reads: int
    writes: int
    sessions: int
    broken: Mapping[str, int]
    violations: tuple[Violation, ...]

    @property
    def held(self) -> bool:
        """Whether there was something to judge, and all of it was kept."""
        return bool(self.reads and self.writes) and not any(self.broken.values())


def check(operations: Sequence[Operation], *, cases_max: int = CASES_MAX) -> Judgement:
    """Judge them, in any order; those of one session must not overlap.

    `cases_max` violations of each guarantee are told with their proof.

    Raises ValueError when two writes have the same value.
    """
    return _Check(sorted(operations, key=_ended), cases_max).run()


def lost(operations: Sequence[Operation], last: Sequence[Operation]) -> list[Operation]:
    """The acknowledged writes that are not in what `last` has read: one read of each key, at the end."""
    versions = Versions([*operations, *last])
    final = {each.key: versions.seen(each.key, each.value, each.version) or {} for each in last}
    return [
        each
        for index, each in enumerate(operations)
        if each.kind == "write" and each.outcome == "ok" and each.key in final
        for place in [versions.seen(each.key, each.value, versions.made(index)) or {}]
        if any(final[each.key].get(line, 0) < version for line, version in place.items())
    ]


class _Check:
    """One pass over the operations, in the order in which they ended."""

    def __init__(self, operations: list[Operation], cases_max: int) -> None:
        self._operations = operations
        self._cases_max = cases_max
        self._versions = Versions(operations)
        self._broken: Counter[str] = Counter()
        self._cases: list[Broken] = []
        self._next = _following(operations)
        self._sessions: dict[int, Session] = {}
        self._carried: dict[int, Carried] = {}
        self._sent = {
            each.message: index
            for index, each in enumerate(operations)
            if each.message and each.kind in ("send", "write")
        }
        self._readers = self._awaited()
        self._least_after, self._least = self._contradicted()

    def run(self) -> Judgement:
        """Everything, and the proofs of what is reported."""
        for index, operation in enumerate(self._operations):
            session = self._sessions.get(operation.session)
            if session is None:
                session = self._sessions[operation.session] = Session()
            self._take(index, operation, session)
            following = self._next[index]
            if following is None:
                del self._sessions[operation.session]
            elif following in self._readers:
                self._carry(following, session)
        kinds = Counter(each.kind for each in self._operations if each.outcome == "ok")
        proofs = Proofs(self._operations, self._versions, self._sent)
        return Judgement(
            operations=len(self._operations),
            reads=kinds["read"],
            writes=kinds["write"],
            sessions=len({each.session for each in self._operations}),
            broken={each: self._broken[each] for each in GUARANTEES},
            violations=tuple(
                Violation(each.guarantee, proofs.says(each), proofs.of(each)) for each in self._cases
            ),
        )

    def _take(self, index: int, operation: Operation, session: Session) -> None:
        if index in self._versions.wrong:
            self._report(self._versions.wrong[index], index)
        elif operation.kind == "write":
            self._write(index, operation, session)
        elif operation.outcome != "ok":
            return
        elif operation.kind == "read":
            self._read(index, operation, session)
        elif operation.kind == "receive":
            self._receive(index, operation, session)

    def _read(self, index: int, operation: Operation, session: Session) -> None:
        key, version = operation.key, operation.version
        line = self._versions.line[key]
        again = session.read.get(line) == version and key not in self._versions.forks
        seen = self._versions.seen(key, operation.value, version)
        self._judge(index, operation, session, seen)
        self._least[line] = self._least_after[index]
        if operation.value:
            write = self._versions.writes[operation.value]
            carried = self._carried.get(write)
            if carried is not None and not again and self._operations[write].session != operation.session:
                merge(carried.written, session.after_writes, self._least)
                merge(carried.read, session.after_reads, self._least)
                merge(carried.past, session.past, self._least)
            self._one_reader_less(write)
        if seen is not None:
            raise_to(session.read, seen)
            raise_to(session.past, seen)

    def _write(self, index: int, operation: Operation, session: Session) -> None:
        version = self._versions.made(index)
        if not version or operation.outcome == "failed":
            return
        self._judge(index, operation, session, self._versions.before(index))
        self._least[self._versions.line[operation.key]] = self._least_after[index]
        seen = self._versions.seen(operation.key, operation.value, version)
        if operation.outcome == "ok" and seen is not None:
            raise_to(session.written, seen)
            raise_to(session.past, seen)

    def _receive(self, index: int, operation: Operation, session: Session) -> None:
        sent = self._sent.get(operation.message)
        if sent is None or self._operations[sent].outcome == "failed":
            self._report(REAL, index)
            return
        if sent in self._carried:
            merge(self._carried[sent].past, session.past, self._least)
        self._one_reader_less(sent)
        write = self._operations[sent]
        if write.kind == "write" and (version := self._versions.made(sent)):
            raise_to(session.past, self._versions.seen(write.key, write.value, version) or {})

    def _judge(self, index: int, operation: Operation, session: Session, seen: Seen | None) -> None:
        if seen is None:
            return
        key = operation.key
        lines = self._versions.forks.get(key) or (self._versions.line[key],)
        found = {
            each: line for line in lines for each in session.broken(operation.kind, line, seen.get(line, 0))
        }
        if len(found) > 1:
            found.pop(CAUSAL, None)  # it is told where no other says it better
        for guarantee, line in found.items():
            self._report(guarantee, index, line, seen.get(line, 0))

    def _report(self, guarantee: str, index: int, line: int = -1, version: int = 0) -> None:
        self._broken[guarantee] += 1
        if self._broken[guarantee] <= self._cases_max:
            self._cases.append(Broken(guarantee, index, line, version))

    def _carry(self, index: int, session: Session) -> None:
        """For the write or message that comes next, what its session knows by now and still matters."""
        least = self._least
        session.written = {line: v for line, v in session.written.items() if v > least[line]}
        session.read = {line: v for line, v in session.read.items() if v > least[line]}
        session.past = {line: v for line, v in session.past.items() if v > least[line]}
        self._carried[index] = Carried(session.written.copy(), session.read.copy(), session.past.copy())

    def _one_reader_less(self, write: int) -> None:
        left = self._readers.get(write, 0) - 1
        self._readers[write] = left
        if left <= 0:
            self._carried.pop(write, None)

    def _awaited(self) -> dict[int, int]:
        """How often what a write or a message carries will be asked for."""
        found: dict[int, int] = {}
        for each in self._operations:
            at = None
            if each.kind == "read" and each.value and each.outcome == "ok":
                at = self._versions.writes.get(each.value)
            elif each.kind == "receive" and each.outcome == "ok":
                at = self._sent.get(each.message)
            if at is not None:
                found[at] = found.get(at, 0) + 1
        return found

    def _contradicted(self) -> tuple[list[int], list[int]]:
        """The lowest version of its line that is seen after each operation, and that after the beginning.

        Of keys that fork it is never known: nothing about them is forgotten.
        """
        never = sys.maxsize
        least = [never] * self._versions.lines
        for lines in self._versions.forks.values():
            for line in lines:
                least[line] = -1
        after = [never] * len(self._operations)
        for index in range(len(self._operations) - 1, -1, -1):
            each = self._operations[index]
            if not each.key or each.outcome == "failed":
                continue
            line = self._versions.line[each.key]
            after[index] = least[line]
            seen = self._versions.made(index) - 1 if each.kind == "write" else each.version
            if 0 <= seen < least[line]:
                least[line] = seen
        return after, least


def _following(operations: Sequence[Operation]) -> list[int | None]:
    """What comes next in the session of each."""
    found: list[int | None] = [None] * len(operations)
    last: dict[int, int] = {}
    for index, operation in enumerate(operations):
        before = last.get(operation.session)
        if before is not None:
            found[before] = index
        last[operation.session] = index
    return found


def _ended(operation: Operation) -> float:
    return operation.ended

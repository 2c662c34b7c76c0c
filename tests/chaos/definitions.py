"""The session guarantees as they are defined, to compare the fast checker with."""

from __future__ import annotations

from collections import Counter, defaultdict

from outgrow.chaos.operations import (
    CAUSAL,
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
    Operation,
)

UNCLEAR = -1


class Definitions:
    """The same, slowly: each operation knows all operations before it, as a set; every pair is compared."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = sorted(operations, key=lambda each: each.ended)
        self.write = {each.value: i for i, each in enumerate(self.operations) if each.kind == "write"}
        self.sent = {
            each.message: i
            for i, each in enumerate(self.operations)
            if each.message and each.kind != "receive"
        }
        self.before: list[list[int]] = []
        sessions: dict[int, list[int]] = defaultdict(list)
        for index, each in enumerate(self.operations):
            self.before.append(list(sessions[each.session]))
            sessions[each.session].append(index)
        self.version = {e.value: e.version for e in self.operations if e.value and e.version}
        self.parent: dict[int, int] = {}
        for each in self.operations:
            if each.version:
                self.parent[each.value] = each.previous
                if each.previous:
                    self.version.setdefault(each.previous, each.version - 1)
        for value, version in self.version.items():
            if value not in self.parent:
                key = self.operations[self.write[value]].key
                every = [v for v, n in self.version.items() if n == version - 1 and self.key(v) == key]
                self.parent[value] = 0 if version == 1 else every[0] if len(every) == 1 else UNCLEAR
        made = Counter((self.key(value), version) for value, version in self.version.items())
        self.forks = {key for (key, _), count in made.items() if count > 1}
        self.known: dict[int, frozenset[int]] = {}

    def key(self, value: int) -> str:
        return self.operations[self.write[value]].key

    def line(self, value: int) -> list[int]:
        """The value, what it replaced, what that had replaced ..."""
        found = [value]
        while found[-1] not in (0, UNCLEAR):
            found.append(self.parent[found[-1]])
        return found

    def includes(self, value: int, version: int, other: int) -> bool:
        """Whether whoever sees this value sees the other one; also where a key forks and nobody can say."""
        if self.key(other) not in self.forks:
            return version >= self.version[other]
        line, others = self.line(value), self.line(other)
        return other in line or UNCLEAR in line or UNCLEAR in others

    def knows(self, index: int) -> frozenset[int]:
        """What had happened before an operation began, as far as anybody can prove."""
        if index not in self.known:
            found: set[int] = set()
            for earlier in self.before[index]:
                each = self.operations[earlier]
                if each.outcome != "ok":
                    continue
                found.add(earlier)
                source = None
                if each.kind == "read" and each.value:
                    source = self.write[each.value]
                elif each.kind == "receive":
                    source = self.sent[each.message]
                if source is not None:
                    found |= self.knows(source) | {source}
            self.known[index] = frozenset(found)
        return self.known[index]

    def seen(self, index: int) -> tuple[int, int] | None:
        """Value and version on which it builds: what it read, or replaced. None when it took no effect."""
        each = self.operations[index]
        if each.kind == "read" and each.outcome == "ok":
            return each.value, each.version
        if each.kind == "write" and each.outcome != "failed" and each.value in self.version:
            return self.parent[each.value], self.version[each.value] - 1
        return None

    def own(self, index: int, kind: str, key: str) -> list[int]:
        """The values that its session had read or written before."""
        every = [self.operations[each] for each in self.before[index]]
        return [e.value for e in every if e.kind == kind and e.outcome == "ok" and e.key == key and e.value]

    def broken(self) -> set[tuple[str, Operation]]:
        return {(each, op) for i, op in enumerate(self.operations) for each in self.broken_by(i)}

    def broken_by(self, index: int) -> set[str]:
        each, seen = self.operations[index], self.seen(index)
        if seen is None:
            return set()
        writes, reads = self.own(index, "write", each.key), self.own(index, "read", each.key)
        found: dict[str, list[int]] = {}
        if each.kind == "write":
            found = {MONOTONIC_WRITES: writes, WRITES_FOLLOW_READS: reads}
        else:
            others = [
                self.write[value]
                for earlier in self.before[index]
                for value in [self.operations[earlier].value]
                if self.operations[earlier].kind == "read" and value
                if self.operations[earlier].outcome == "ok"
                if self.operations[self.write[value]].session != each.session
            ]
            found = {
                READ_YOUR_WRITES: writes,
                MONOTONIC_READS: reads,
                MONOTONIC_WRITES: [v for other in others for v in self.own(other, "write", each.key)],
                WRITES_FOLLOW_READS: [v for other in others for v in self.own(other, "read", each.key)],
            }
        direct = {name for name, known in found.items() if any(not self.includes(*seen, v) for v in known)}
        if direct:
            return direct
        past = [self.operations[other] for other in self.knows(index)]
        every = [e.value for e in past if e.key == each.key and e.value in self.version]
        return {CAUSAL} if any(not self.includes(*seen, value) for value in every) else set()

"""The order of each key's versions, out of a history alone.

Usually they are one line, 1, 2, 3 ... Where a failover has lost writes, or two primaries have accepted some,
a version was made twice: the key's history forks. It is taken apart into lines:

    line 0   1 ── 2 ── 3 ── 4 ── 5           whoever sees 5 sees 2, and nothing of line 1
                  └──── 3'── 4'    line 1    whoever sees 4' sees line 0 as it was at 2

so that "not older than" is a comparison of numbers on each line, fork or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from outgrow.chaos.operations import ONCE, REAL, Operation

Seen = Mapping[int, int]
"""What a value stands for: for each line of its key, the version that is included. Absent is none."""


class Versions:
    """Of all keys. `writes` finds a write by its value; `wrong` is what cannot be ordered, and why."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self.writes: dict[int, int] = {}
        self.line: dict[str, int] = {}
        self.forks: dict[str, list[int]] = {}
        """The lines of those keys that have several."""
        self.wrong: dict[int, str] = {}
        self._version: dict[int, int] = {}
        self._previous: dict[int, int] = {}
        self._parents: dict[int, int] = {}
        self._seen: dict[int, Seen] = {}
        for index, operation in enumerate(operations):
            if operation.key and operation.key not in self.line:
                self.line[operation.key] = len(self.line)
            if operation.kind == "write":
                if operation.value in self.writes:
                    raise ValueError(f"two writes have the value {operation.value}: {operation}")
                self.writes[operation.value] = index
        self._fork(self._place())

    def made(self, index: int) -> int:
        """The version that a write has made, as itself or a reader says; 0 where nobody has seen it."""
        operation = self.operations[index]
        return operation.version or self._version.get(operation.value, 0)

    def seen(self, key: str, value: int, version: int) -> Seen | None:
        """What is included in this value of a key; None where a key forks and nobody can say."""
        if key in self.forks:
            return self._seen.get(value)
        return {self.line[key]: version}

    def before(self, index: int) -> Seen | None:
        """What is included in the value that a write has replaced."""
        operation = self.operations[index]
        if operation.key in self.forks:
            return self._seen.get(self._parents.get(operation.value, -1))
        return {self.line[operation.key]: self.made(index) - 1}

    def _place(self) -> set[str]:
        """Note who made which version. Returns the keys of which one was made twice."""
        at: dict[tuple[str, int], int] = {}
        forked: set[str] = set()
        for index, operation in enumerate(self.operations):
            if operation.kind not in ("read", "write") or operation.outcome != "ok":
                continue
            if operation.kind == "read" and (why := self._unreal(operation)):
                self.wrong[index] = why
                continue
            made = [(operation.value, operation.version)] if operation.value else []
            if operation.previous in self.writes:
                self._previous[operation.value] = operation.previous
                # That one took effect, whatever its own session was told.
                made.append((operation.previous, operation.version - 1))
            for value, version in made:
                if self._version.setdefault(value, version) != version:
                    self.wrong[index] = ONCE
                elif at.setdefault((operation.key, version), value) != value:
                    forked.add(operation.key)
        return forked

    def _unreal(self, read: Operation) -> str:
        if not read.value:
            return REAL if read.version else ""
        found = self.writes.get(read.value)
        if found is None:
            return REAL
        write = self.operations[found]
        real = write.key == read.key and write.outcome != "failed" and write.started <= read.ended
        return "" if real else REAL

    def _fork(self, forked: set[str]) -> None:
        values: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for value, version in self._version.items():
            key = self.operations[self.writes[value]].key
            if key in forked:
                values[key].append((version, value))
        count = len(self.line)
        for key in sorted(forked):
            tip: dict[int, int] = {0: self.line[key]}  # the value at the end of a line, and which line
            self.forks[key] = [self.line[key]]
            self._seen[0] = {}
            for version, value in sorted(values[key]):
                parent = self._parent(value, [each for n, each in values[key] if n == version - 1])
                before = None if parent is None else self._seen.get(parent)
                if parent is None or before is None:
                    continue  # nobody can say which line it is on
                self._parents[value] = parent
                line = tip.pop(parent, None)
                if line is None:
                    line, count = count, count + 1
                    self.forks[key].append(line)
                tip[value] = line
                self._seen[value] = {**before, line: version}
        self.lines = count

    def _parent(self, value: int, candidates: list[int]) -> int | None:
        """The value that this one replaced. Where nobody has noted it, the only one that it can be."""
        if known := self._previous.get(value, 0):
            return known
        if self._version[value] == 1:
            return 0
        return candidates[0] if len(candidates) == 1 else None

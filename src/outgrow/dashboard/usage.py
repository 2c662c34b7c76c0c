"""How much CPU and memory each node uses, from /proc."""

from __future__ import annotations

import time
from collections import deque

from outgrow.cluster import NodeStatus, measure

CPU_LOOKS = 4
"""The kernel counts CPU in hundredths of a second: over three seconds that is a third of a percent."""

MEMORY_EVERY_S = 10.0
"""Proportional memory costs the kernel a walk through every page table."""


class Usage:
    """CPU (in cores) and memory of every node."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[int, float]]] = deque(maxlen=CPU_LOOKS)
        self._memory_at = -MEMORY_EVERY_S
        self._cpu: dict[str, float] = {}
        self._memory: dict[str, int] = {}

    def look(self, nodes: tuple[NodeStatus, ...]) -> None:
        """How much each uses now."""
        pids = {node.name: node.pid for node in nodes if node.pid is not None}
        now = time.monotonic()
        used = {pid: measure.cpu_seconds(pid) for pid in pids.values()}
        self._looks.append((now, {pid: cpu_s for pid, cpu_s in used.items() if cpu_s is not None}))
        self._cpu = {name: cpu for name, pid in pids.items() if (cpu := self._share(pid)) is not None}
        if now - self._memory_at >= MEMORY_EVERY_S:
            self._memory_at = now
            looked = {name: measure.used(pid) for name, pid in pids.items()}
            self._memory = {name: usage.memory for name, usage in looked.items() if usage is not None}
        self._memory = {name: size for name, size in self._memory.items() if name in pids}

    def _share(self, pid: int) -> float | None:
        """Cores that it has kept busy since the oldest look that has seen it; None when seen once."""
        now, newest = self._looks[-1]
        first = next(((at, used[pid]) for at, used in self._looks if pid in used), None)
        if first is None or pid not in newest or first[0] == now:
            return None
        # What a child that has ended used is no part of the sum any more, which may fall by it.
        return max(0.0, newest[pid] - first[1]) / (now - first[0])

    def of(self, name: str) -> tuple[float | None, int | None]:
        """CPU and memory of a node; None where it does not run or was not seen twice."""
        return self._cpu.get(name), self._memory.get(name)

    def series(self) -> dict[str, float]:
        """The same for the history."""
        cpu = {f"cpu:{name}": value for name, value in self._cpu.items()}
        return cpu | {f"memory:{name}": float(value) for name, value in self._memory.items()}

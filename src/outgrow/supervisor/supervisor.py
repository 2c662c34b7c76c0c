"""Runs a list of workloads as one whole.

start:  sockets ─► in order of `after`, equals side by side; what each node does then is in node.py
stop:   who is needed by others last: signal, grace, kill; then whatever else bears the fleet's mark
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby

import msgspec

from outgrow.supervisor import handover, orphans, ports
from outgrow.supervisor.limits import Limits
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.node import Change, Node
from outgrow.supervisor.order import in_order, to_stop
from outgrow.workload import Address, Workload

ROTATE_EVERY_S = 1.0
LEFT_GRACE_S = 2.0
"""For what outlives the node that has started it: that one has had its time."""


class Supervisor:
    """Runs workloads. `fleet` marks every child, so that orphans.find knows it.

    `tell` hears each change; it must not raise. `noted` is called with all notes whenever a child is
    born or has ended; an OSError of it (a full disk) is passed over, since the mark is enough.
    """

    def __init__(
        self,
        logs: Logs,
        fleet: str,
        *,
        tell: Callable[[Change], None] = lambda change: None,
        noted: Callable[[Mapping[str, orphans.Note]], None] = lambda notes: None,
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.limits = Limits(fleet)
        self.logs = logs
        self.mark = {orphans.MARK: fleet}
        self.stopping = False
        self._fleet = fleet
        self._tell = tell
        self._noted = noted
        self._rotation: asyncio.Task[None] | None = None

    async def start(self, workloads: Sequence[Workload]) -> None:
        """Start them all, each after what it names. Returns when every service is ready.

        May be called again with more, which may come after what runs already. Raises PortTaken,
        NodeFailed, FleetError or what a node has told of itself (ApplicationBroken); what has been
        started by then, also when cancelled, runs on until `stop` or `remove` is called.
        """
        there = {*self.nodes, *(each.name for each in workloads)}
        known = [
            # What it once waited for may have been removed since.
            msgspec.structs.replace(each, after=tuple(name for name in each.after if name in there))
            for each in (node.workload for node in self.nodes.values())
        ]
        added = [each for each in in_order([*known, *workloads]) if each.name not in self.nodes]
        if self._rotation is None:
            self._rotation = asyncio.create_task(self._rotate())
        self.nodes |= {workload.name: Node(workload, self) for workload in added}
        for workload in sorted(added, key=_everywhere_first):
            self._open(self.nodes[workload.name])
        # Equals start side by side: eight servers take hardly longer than one.
        for _, equals in groupby(added, key=lambda each: (each.tier, each.kind, each.after)):
            starts = [self.nodes[each.name].start() for each in equals]
            for outcome in await asyncio.gather(*starts, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    def _open(self, node: Node) -> None:
        """Its sockets. Where another node of this fleet has the address, it joins that one."""
        holders = [each.workload for each in self.nodes.values() if each.sockets or each.claims]
        taken = [address for each in holders for address in _addresses(each)]

        def joins(address: Address) -> bool:
            return any(ports.overlap(address, other) for other in taken)

        for address in node.workload.listen:
            node.sockets.append(ports.listen(address, joins=joins(address)))
        for address in node.workload.claims:
            node.claims.append(ports.claim(address, joins=joins(address)))
        node.opened = time.monotonic()

    async def remove(self, names: Collection[str]) -> None:
        """End these nodes and forget them; names that nobody has are passed over.

        Addresses that they share with others are left to those first.
        """
        gone = [node for name, node in self.nodes.items() if name in names]
        await handover.leave(self.nodes, names)
        for group in to_stop([node.workload for node in gone]):
            await asyncio.gather(*(self._remove(each.name) for each in group))
        for address in {each for node in gone for each in _addresses(node.workload)}:
            handover.settled(self.nodes, address)
        self._note()

    async def _remove(self, name: str) -> None:
        node = self.nodes[name]
        await node.end()
        del self.nodes[name]
        host = node.workload.host
        if node.workload.cpu is not None and not self._on(host):
            await asyncio.to_thread(self.limits.remove, host)

    async def replace(self, workload: Workload) -> None:
        """Run this in the place of the node of its name, on the same sockets: who connects meanwhile waits.

        Raises what start raises.
        """
        node = self.nodes[workload.name]
        await node.unwatch()
        await node.end_process()
        node.workload = workload
        await node.start()

    def rename(self, names: Mapping[str, str]) -> None:
        """Nodes get another name, and keep their place and all they have."""
        renamed = {names.get(name, name): node for name, node in self.nodes.items()}
        for name, node in renamed.items():
            node.workload = msgspec.structs.replace(node.workload, name=name)
        self.nodes.clear()
        self.nodes.update(renamed)
        self._note()

    def _on(self, host: str) -> list[Node]:
        """Who runs on an emulated host."""
        return [node for node in self.nodes.values() if node.workload.host == host]

    def limit(self, name: str, cpu: float | None) -> None:
        """From now on the host of this node has so many cores; None: no limit."""
        node = self.nodes[name]
        if node.workload.cpu is None and node.pid is not None:
            self.limits.join(node.workload.host, node.pid)
        node.workload = msgspec.structs.replace(node.workload, cpu=cpu)
        self.limits.set(node.workload.host, cpu)

    async def stop(self) -> None:
        """End everything; what others need ends after them. However this ends, no child is left.

        Takes at most the sum of the longest grace of each group (see order.to_stop). When cancelled,
        it kills what still runs. Raises FleetError when a child cannot be ended.
        """
        self.stopping = True
        try:
            await self._end_tasks()
            for group in to_stop([node.workload for node in self.nodes.values()]):
                await asyncio.gather(*(self.nodes[each.name].end() for each in group))
            await asyncio.to_thread(self._sweep)
            await asyncio.to_thread(self.limits.remove)
            self._note()
        finally:
            for node in self.nodes.values():
                node.close_sockets()
                if node.process is not None:
                    node.process.kill()

    async def _end_tasks(self) -> None:
        """Nothing is started again from now on."""
        if self._rotation is not None:
            self._rotation.cancel()
            await asyncio.gather(self._rotation, return_exceptions=True)
        await asyncio.gather(*(node.unwatch() for node in self.nodes.values()))

    def _sweep(self) -> None:
        """What a node has started and set free, so that it was not in its group any more."""
        left = orphans.find(self._fleet, ())
        orphans.end(msgspec.structs.replace(each, grace_s=LEFT_GRACE_S) for each in left)

    def changed(self, node: Node) -> None:
        """A node is in another state."""
        if node.state == "ready" and node.workload.cpu is not None:
            self.limits.set(node.workload.host, node.workload.cpu)
        self._tell(Change(node.workload.name, node.state, node.text))

    def spawned(self, node: Node) -> None:
        """A child is born."""
        workload = node.workload
        if workload.cpu is not None and node.pid is not None:
            self.limits.join(workload.host, node.pid)
            if all(each.state != "ready" for each in self._on(workload.host)):
                self.limits.set(workload.host, None)  # its start is not what is measured
        self._note()

    def ended(self) -> None:
        """A child has ended."""
        self._note()

    def can_do_without(self, node: Node) -> bool:
        """Whether another of its pool is ready."""
        pool = node.workload.pool
        return bool(pool) and any(
            each.workload.pool == pool and each.state == "ready"
            for each in self.nodes.values()
            if each is not node
        )

    def _note(self) -> None:
        groups = to_stop([node.workload for node in self.nodes.values()])
        turns = {each.name: turn for turn, group in enumerate(groups) for each in group}
        with contextlib.suppress(OSError):
            self._noted(
                {
                    name: orphans.note(node.pid, node.workload.stop, turns[name])
                    for name, node in self.nodes.items()
                    if node.pid is not None
                }
            )

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_EVERY_S)
            await asyncio.to_thread(self.logs.rotate)


def _addresses(workload: Workload) -> tuple[Address, ...]:
    return (*workload.listen, *workload.claims)


def _everywhere_first(workload: Workload) -> bool:
    """A socket on every address is bound before those on one: only then does it find out who has one."""
    return all(each.host not in ports.EVERYWHERE for each in _addresses(workload))

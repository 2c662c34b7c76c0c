"""The database's nodes while they run: what they are now, and what is done when one is lost.

etcd, twice a second ─► View ─► status, failovers with their phases
a host has ended ─► proven empty ─► its lease is deleted ─► another node takes over at once
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outgrow.cluster import fencer
from outgrow.cluster.failovers import Failovers
from outgrow.cluster.status import SYNCHRONOUS, Part
from outgrow.cluster.stragglers import Stragglers, troubles
from outgrow.engines.etcd.client import Client
from outgrow.engines.patroni import client as patroni_client
from outgrow.engines.patroni.client import look
from outgrow.engines.patroni.patroni import NAMESPACE, PREFIX, Patroni, slot_of
from outgrow.engines.patroni.view import LEADER, View, view
from outgrow.engines.postgres.primary import Primary
from outgrow.errors import FleetError
from outgrow.supervisor.node import Change, Node

EVERY_S = 0.5
MEANWHILE_S = 0.1
"""While a failover is under way."""

ANSWERS_WITHIN_S = 0.3

AFTERWARDS_S = 3.0
"""Then etcd tells of every node what it is since: each writes it there at the end of its round."""

FENCE_WITHIN_S = 15.0
"""Later the lease has nearly run out by itself."""

logger = logging.getLogger("outgrow.replication")


class Replication:
    """Watches the nodes of one cluster. `nodes` are the supervisor's; commits may wait for `waits_s`.

    `failovers` outlives it: a fleet that has become another one still tells of those before.
    """

    def __init__(
        self,
        engine: Patroni,
        nodes: Mapping[str, Node],
        passwords: Mapping[str, str],
        logs: Path,
        waits_s: float | None,
        failovers: Failovers,
    ) -> None:
        self._prefix = f"{NAMESPACE}{engine.role}/"
        self._settings = engine.etcd()
        self._hosts = engine.hosts
        self._nodes = nodes
        self._urls = {name: engine.node_url(name) for name in engine.hosts}
        self._primary = Primary(passwords["admin"], waits_s)
        self._stragglers = Stragglers(self._hosts, logs)
        self._patroni = patroni_client.Client(passwords["patroni"])
        self._failovers = failovers
        self._namespaces: dict[str, int] = {}
        self._fencing: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closely_until = 0.0
        self.view = View()

    def part(self, name: str) -> Part:
        """A node's part; one that is not known or does not serve has none, but the log may be kept for it."""
        kept = self._primary.kept.get(slot_of(name))
        member = self.view.members.get(name)
        if member is None or not member.serves:
            return Part(kept=kept)
        if member.role == "primary":
            return Part("primary", member.timeline)
        role = SYNCHRONOUS if name in self.view.synchronous else "replica"
        return Part(role, member.timeline, self.view.lag(member), kept)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What a person has to decide."""
        return troubles(self.view)

    async def run(self) -> None:
        """Until cancelled."""
        beside = asyncio.create_task(self._look_after_primary())
        try:
            client = await self._client()
            while True:
                try:
                    await self._look(client)
                    await self._rebuild()
                except Exception:  # a view that stands still would name a primary of the past for ever
                    logger.exception("one look at the nodes has failed")
                pause_s = MEANWHILE_S if self._failovers.under_way else EVERY_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            tasks = (beside, *self._fencing)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._primary.close()

    async def _look_after_primary(self) -> None:
        """Beside the looks at etcd, which must not wait for a primary that hangs."""
        while True:
            try:
                await self._look_at_primary()
            except Exception:
                logger.exception("one look at the primary has failed")
            await asyncio.sleep(EVERY_S)

    async def _look_at_primary(self) -> None:
        """What it keeps for whom; a commit that waits for a replica in vain ends."""
        first = self.view.primary
        if first is None:
            return
        ended = await self._primary.look(self._urls[first.name])
        if ended:
            logger.warning("%d commits were told that no replica has confirmed them", ended)

    async def _rebuild(self) -> None:
        """A replica that can't follow any more copies the database anew."""
        for name in await asyncio.to_thread(self._stragglers.due, self.view):
            logger.warning("%s needs a part of the log that is gone: it copies the database anew", name)
            host, body = self._hosts[name], {"force": True, "from_leader": True}
            try:
                await asyncio.to_thread(self._patroni.change, "POST", host, "/reinitialize", body)
            except FleetError as error:
                logger.warning("%s does not: %s", name, error)

    async def _client(self) -> Client:
        """Once its certificate has been made."""
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.to_thread(Client, self._settings)
            await asyncio.sleep(EVERY_S)

    async def _look(self, client: Client) -> None:
        for name, node in list(self._nodes.items()):
            if name.startswith(PREFIX) and node.pid is not None:
                found = fencer.namespace(node.pid)
                if found is not None:
                    self._namespaces[name] = found
        with contextlib.suppress(FleetError):  # most of etcd is gone: the nodes go on as they are
            seen = view(await asyncio.to_thread(client.below, self._prefix))
            now = time.monotonic()
            if self._failovers.under_way:
                self._closely_until = now + AFTERWARDS_S
            self.view = await self._closely(seen) if now < self._closely_until else seen
            self._failovers.seen(time.monotonic(), self.view)

    async def _closely(self, seen: View) -> View:
        """As the nodes say themselves: what is in etcd may be two seconds old."""
        asked = [
            asyncio.ensure_future(asyncio.to_thread(look, name, host)) for name, host in self._hosts.items()
        ]
        # Who is just being stopped answers late, and says nothing of who accepts writes by now.
        answered, _ = await asyncio.wait(asked, timeout=ANSWERS_WITHIN_S)
        told = [found for each in answered if (found := each.result()) is not None]
        return seen._replace(members={each.name: each for each in told})

    def heard(self, change: Change) -> None:
        """A node has changed its state. When a host has ended by itself, its lease is of no use any more."""
        if change.state not in ("restarting", "failed") or not change.node.startswith(PREFIX):
            return
        self._failovers.lost(time.monotonic(), change.node, change.text.partition(";")[0])
        task = asyncio.create_task(self._fence(change.node))
        self._fencing.add(task)
        task.add_done_callback(self._fencing.discard)

    async def _fence(self, name: str) -> None:
        """Prove that it is dead, then delete its lease. What cannot be proven waits until it runs out."""
        namespace = self._namespaces.pop(name, None)
        if self.view.paused:
            return
        if namespace is None or not await asyncio.to_thread(fencer.prove_empty, namespace):
            logger.warning("%s has ended, which cannot be proven: its lease runs out by itself", name)
            return
        deadline = time.monotonic() + FENCE_WITHIN_S
        client = Client(self._settings)
        try:
            while time.monotonic() < deadline:
                with contextlib.suppress(FleetError):
                    await asyncio.to_thread(_delete_lease, client, self._prefix, name)
                    break
                await asyncio.sleep(MEANWHILE_S)
        finally:
            client.close()
        self._wake.set()


def _delete_lease(client: Client, prefix: str, name: str) -> None:
    """If it has one. The one that is meant has been there before its holder died."""
    lease: Any = client.below(prefix).get(LEADER)
    if lease is not None and lease.value == name:
        client.delete(prefix + LEADER, lease)

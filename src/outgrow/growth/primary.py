"""Changing the primary on purpose, while the application serves.

switchover   Patroni is ready ─► hold writes ─► the next one has all ─► Patroni stops the old one,
             promotes the next ─► let go
failover     the primary's host is ended, whatever it does; the most advanced of the others takes over
rebuild      a replica throws its data away and copies all of it from the primary
pause        nobody takes over by itself, until `resume`
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from outgrow import cluster, endpoints
from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.cluster.plan import replicated
from outgrow.cluster.processes import Processes
from outgrow.cluster.state import State
from outgrow.engines.patroni.client import Client, look
from outgrow.engines.patroni.hand_over import DATABASE
from outgrow.engines.patroni.patroni import Patroni
from outgrow.engines.patroni.view import RUNNING, Member
from outgrow.errors import FleetError, FleetNotRunning, Misuse
from outgrow.growth import hand_over
from outgrow.growth import journal as journals
from outgrow.growth.data import postgres_follower as follower
from outgrow.growth.journal import Journal
from outgrow.topology.wording import nearest

HOLD_S = 10.0
HOLD_SHARE = 0.7
"""Of the time for which a write block waits: what has not begun by then is given up."""

CAUGHT_UP_S = 1.0
FOLLOWS_WITHIN_S = 10.0
"""For a replica to be one that may take over."""

TAKES_OVER_WITHIN_S = 60.0
STOPS_WITHIN_S = 10.0
"""For a replica to have begun with what it was asked for."""

COPIES_WITHIN_S = 24 * 3600.0
EVERY_S = 0.1


class Change(NamedTuple):
    """Who the primary was and is, and for how long no write was accepted."""

    before: str
    after: str
    seconds: float


class _Nodes(NamedTuple):
    """The cluster of a running fleet."""

    state: State
    engine: Patroni
    passwords: dict[str, str]
    timeout_s: float
    all_confirm: bool

    async def members(self) -> dict[str, Member]:
        """Those that answer, as they are now."""
        asked = (asyncio.to_thread(look, name, host) for name, host in self.engine.hosts.items())
        return {each.name: each for each in await asyncio.gather(*asked) if each is not None}

    async def primary(self) -> str | None:
        """Who accepts writes, as they say themselves."""
        found = [name for name, each in (await self.members()).items() if each.role == "primary"]
        return found[0] if len(found) == 1 else None

    async def serves(self, name: str) -> bool:
        """Whether it does what its role says."""
        member = await asyncio.to_thread(look, name, self.engine.hosts[name])
        return member is not None and member.serves


async def switchover(directory: Path, target: str | None) -> Change:
    """Make another node the primary. Raises Misuse, FleetNotRunning, or FleetError: it stays as it was."""
    nodes = await _nodes(directory)
    with _changing(nodes.state, "switchover", target or "the most advanced replica"):
        before, after = await _chosen_by(nodes, target)
        return Change(before, after, await _switch(nodes, before, after))


async def _chosen_by(nodes: _Nodes, target: str | None) -> tuple[str, str]:
    """Who is the primary, and who is to be it. Soon after a change the replicas have yet to follow."""
    deadline = time.monotonic() + FOLLOWS_WITHIN_S
    while True:
        members = await nodes.members()
        before = next((name for name, each in members.items() if each.role == "primary"), None)
        if before is None:
            raise FleetError("there is no primary to switch from", hint="`outgrow status` shows the nodes")
        if nodes.all_confirm:  # with `sync` nobody else may take over
            members = {name: each for name, each in members.items() if each.confirms or name == before}
        try:
            return before, _chosen(target, before, members, list(nodes.engine.hosts))
        except FleetError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(EVERY_S)


async def _switch(nodes: _Nodes, before: str, after: str) -> float:
    password, url = nodes.passwords["admin"], nodes.engine.node_url(before)
    async with (
        follower.connected(url, password) as old,
        follower.connected(f"{url.rpartition('/')[0]}/{DATABASE}", password) as word,
        follower.connected(nodes.engine.node_url(after), password) as new,
    ):
        # What is written down now need not be while everybody waits for it.
        await old.execute("CHECKPOINT")
        await follower.until_replayed(new, await follower.position(old), TAKES_OVER_WITHIN_S)
        await hand_over.claim(word)
        body = {"leader": before, "candidate": after}
        client, host = Client(nodes.passwords["patroni"]), nodes.engine.hosts[before]
        asked = asyncio.create_task(asyncio.to_thread(client.change, "POST", host, "/switchover", body))
        given = False
        try:
            async with Processes(nodes.state.placement().control) as processes:
                await _first(asked, hand_over.until_awaited(word))
                await control.change(
                    nodes.state.application, Request("hand-over", names=(before,)), tell=lambda change: None
                )
                began = time.monotonic()
                await processes.hold(HOLD_S)
                await follower.until_replayed(new, await follower.position(old), CAUGHT_UP_S)
                if time.monotonic() - began > nodes.timeout_s * HOLD_SHARE / 2:
                    raise FleetError("the writes could not be held for as long as it takes", hint="try again")
                given = True
                await hand_over.give(word)
                await _first(asked, follower.until_writable(new, TAKES_OVER_WITHIN_S))
                took = time.monotonic() - began
                timeline, lsn = await follower.begun(new)
                await processes.ask("release", node=before, timeline=timeline, lsn=lsn)
        finally:
            if not given:
                await hand_over.refuse(word, asked)
            await asyncio.gather(asked, return_exceptions=True)
        asked.result()
        return took


async def _first(asked: asyncio.Task[str], happens: Coroutine[Any, Any, None]) -> None:
    """Until it has happened, with what was asked for under way. Raises what either of them raises."""
    task = asyncio.create_task(happens)
    try:
        await asyncio.wait((asked, task), return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            asked.result()  # a refusal comes at once, and success after the promotion
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def failover(directory: Path) -> Change:
    """End the primary's host; the others choose among themselves. Raises FleetError when nobody does."""
    nodes = await _nodes(directory)
    with _changing(nodes.state, "failover", "the most advanced replica"):
        status = await cluster.status(directory, measured=False)
        lost = next((node for node in status.nodes if node.role == "primary"), None)
        if lost is None or lost.pid is None:
            raise FleetError(
                "no node has the lease of the primary",
                hint="one takes over as soon as it may; `outgrow status` shows the nodes",
            )
        # They need not follow: where the primary hangs for longer than sync_timeout, they have given it up.
        if not any(
            each.state in RUNNING and name != lost.name for name, each in (await nodes.members()).items()
        ):
            raise FleetError("no replica runs that could take over", hint="`outgrow status` shows them")
        began = time.monotonic()
        os.kill(lost.pid, signal.SIGKILL)
        async with asyncio.timeout(TAKES_OVER_WITHIN_S):
            while (after := await nodes.primary()) in (None, lost.name):
                await asyncio.sleep(EVERY_S)
        return Change(lost.name, str(after), time.monotonic() - began)


async def rebuild(directory: Path, name: str) -> float:
    """Have a replica copy everything anew; returns after how many seconds it follows.

    Raises Misuse, FleetNotRunning, or FleetError when it does not.
    """
    nodes = await _nodes(directory)
    with _changing(nodes.state, "rebuild", name):
        _require_known(name, list(nodes.engine.hosts))
        first = await nodes.primary()
        if first is None:
            raise FleetError("there is no primary to copy from", hint="`outgrow status` shows the nodes")
        if first == name:
            raise Misuse(f"{name} is the primary", hint="`outgrow switchover` makes it a replica first")
        began = time.monotonic()
        client, body = Client(nodes.passwords["patroni"]), {"force": True, "from_leader": True}
        await asyncio.to_thread(client.change, "POST", nodes.engine.hosts[name], "/reinitialize", body)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOPS_WITHIN_S):
                while await nodes.serves(name):
                    await asyncio.sleep(EVERY_S)
        async with asyncio.timeout(COPIES_WITHIN_S):
            while not await nodes.serves(name):
                await asyncio.sleep(EVERY_S)
        return time.monotonic() - began


async def pause(directory: Path, *, paused: bool) -> None:
    """Whether nobody is to take over by itself. Raises FleetError when no node answers."""
    nodes = await _nodes(directory)
    with _changing(nodes.state, "pause" if paused else "resume", "database"):
        client, wrong = Client(nodes.passwords["patroni"]), FleetError("no node answers")
        for host in nodes.engine.hosts.values():
            try:
                await asyncio.to_thread(client.change, "PATCH", host, "/config", {"pause": paused or None})
            except FleetError as error:
                wrong = error
            else:
                return
        raise wrong


async def _nodes(directory: Path) -> _Nodes:
    state = State(directory)
    if state.holder() is None:
        raise FleetNotRunning(str(directory))
    topology = await control.topology(directory)
    document = state.published()
    if not replicated(topology) or document is None:
        raise Misuse(
            "the database has no replicas that the fleet runs",
            hint="`outgrow grow replication` gives it some",
        )
    host = str(urlsplit(document.database.shards[0].nodes[0].url).hostname)
    place = state.placement(state.placement(host).neighbour(1))
    passwords = endpoints.read_secrets(place.operator_secrets).passwords
    database = topology.database
    all_confirm = database.replication == "sync"
    return _Nodes(state, Patroni(topology, place), passwords, database.checkout_timeout, all_confirm)


def _chosen(target: str | None, before: str, members: dict[str, Member], known: list[str]) -> str:
    """The one that was asked for, else the most advanced. Raises Misuse, FleetError."""
    if target == before:
        raise Misuse(f"{target} is the primary already", hint="`outgrow status` shows the nodes")
    if target is not None:
        _require_known(target, known)
    replicas = [each for each in members.values() if each.name != before and each.serves]
    if target is not None and target not in {each.name for each in replicas}:
        raise FleetError(f"{target} does not follow the primary", hint="`outgrow logs` says why")
    if not replicas:
        raise FleetError("no replica follows that could take over", hint="`outgrow status` shows the nodes")
    return target or max(replicas, key=lambda each: each.position or 0).name


def _require_known(name: str, known: list[str]) -> None:
    if name not in known:
        raise Misuse(f"there is no node {name}", hint=nearest(name, known) or f"one of: {', '.join(known)}")


@contextlib.contextmanager
def _changing(state: State, what: str, to: str) -> Iterator[None]:
    """Nobody else changes the fleet meanwhile; what came of it is written down."""
    with journals.locked(state.growth, what):
        journals.require_none(Journal(state.growth))
        began = time.time()
        try:
            yield
        except (FleetError, TimeoutError) as error:
            journals.audit(state.growth, began, what, to, f"failed: {error}")
            raise
        journals.audit(state.growth, began, what, to, "done")

"""A fleet whose database has replicas, and clients that look at its nodes themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from outgrow import endpoints
from outgrow.cluster import NodeStatus
from outgrow.engines.etcd import etcd
from outgrow.engines.patroni import patroni
from outgrow.errors import EngineMissing
from tests.support.fleets import RunningFleet, make_application, run, wait_until
from tests.support.lacking import lacking

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""
"""It needs no database: what is tested is the database."""

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # no node is the primary just now; or it went while an answer was read
)

TOPOLOGY = """
stage = "replication"
[application]
name = "hello"
app = "app:app"
servers = 1
[dashboard]
enabled = false
[database]
"""


def program() -> None:
    """What failover needs, or a skipped test; in continuous integration it has to be there."""
    try:
        etcd.find()
        patroni.require_patroni()
    except EngineMissing as error:
        lacking(str(error))


class Cluster(RunningFleet):
    """A fleet with replicas and a small application."""

    def __init__(self, directory: Path, database: str = "") -> None:
        program()
        make_application(directory)
        (directory / "app.py").write_text(APPLICATION)
        (directory / "outgrow.toml").write_text(TOPOLOGY + database)
        super().__init__(directory, "replication")

    @property
    def nodes(self) -> list[NodeStatus]:
        """The database's nodes that do what their role says."""
        return [node for node in self.status().nodes if node.role]

    @property
    def primary(self) -> NodeStatus:
        """The one that has the lease, as the fleet sees it."""
        return next(node for node in self.nodes if node.role == "primary")

    def whole(self) -> bool:
        """Whether there is a primary, and every other node follows it on its timeline."""
        nodes = self.nodes
        timelines = {node.timeline for node in nodes}
        roles = [node.role == "primary" for node in nodes]
        return len(nodes) == self.topology.database.copies + 1 and sum(roles) == 1 == len(timelines)

    def wait_until_whole(self, within_s: float = 60.0) -> None:
        """Every node is back."""
        wait_until(self.whole, f"all nodes: {self.nodes}", within_s)

    def password(self, role: str = "admin") -> str:
        """One of the operator's."""
        return endpoints.read_secrets(self.state.placement().operator_secrets).passwords[role]

    def hosts(self) -> dict[str, str]:
        """Name -> address, as the application is told."""
        document = endpoints.read(self.state.placement().endpoints)
        nodes = document.database.shards[0].nodes
        return {node.name: node.url.rpartition("@")[2].partition("/")[0] for node in nodes}

    async def connect(self, node: str | None = None, **more: Any) -> Any:
        """As the superuser: to this node, else to the primary, whichever that is."""
        hosts = self.hosts()
        place = hosts[node] if node is not None else f"{','.join(hosts.values())}"
        target = "any" if node is not None else "primary"
        url = f"postgresql://outgrow_admin@{place}/hello?target_session_attrs={target}"
        return await asyncpg.connect(url, password=self.password(), timeout=2, **more)

    def ask(self, sql: str, *values: Any, node: str | None = None) -> Any:
        """The rows of one statement."""

        async def ask() -> Any:
            connection = await self.connect(node)
            try:
                return await connection.fetch(sql, *values)
            finally:
                await connection.close()

        return run(ask())

    def writable(self) -> list[str]:
        """The nodes that accept writes, as they themselves say."""
        found = []
        for node in self.hosts():
            try:
                (row,) = self.ask("SELECT NOT pg_is_in_recovery() AS writable", node=node)
            except UNREACHABLE:
                continue
            if row["writable"]:
                found.append(node)
        return found


def inside(host: NodeStatus) -> list[int]:
    """All processes of a host: its own first, then its init."""
    assert host.pid is not None
    return below(host.pid)


def below(pid: int) -> list[int]:
    """A process and all it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in below(int(child)))]


def running(pids: Sequence[int], text: str) -> list[int]:
    """Those of them whose command line has this text."""
    found = []
    for pid in pids:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(pid)
    return found


def postmaster(host: NodeStatus) -> int:
    """PostgreSQL's first process on a host."""
    return running(inside(host), "bin/postgres -D")[0]


def patroni_of(host: NodeStatus) -> int:
    """The Patroni of a host."""
    return running(inside(host)[2:], "patroni.run")[0]


class Writer:
    """Writes a row after the other, each on the primary of the moment, until it is stopped.

    `acknowledged` are those whose commit has returned; `gap_s` is the longest time between two of them.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.acknowledged: list[int] = []
        self.gap_s = 0.0

    async def write(self, until: asyncio.Event) -> None:
        """Begins with a table of its own."""
        connection = await self._connect()
        await connection.execute("DROP TABLE IF EXISTS written; CREATE TABLE written (id bigint PRIMARY KEY)")
        number, last = 0, time.monotonic()
        while not until.is_set():
            number += 1
            try:
                await connection.execute("INSERT INTO written VALUES ($1)", number, timeout=2)
            except UNREACHABLE:
                connection.terminate()
                connection = await self._connect()
                continue
            self.acknowledged.append(number)
            now = time.monotonic()
            self.gap_s, last = max(self.gap_s, now - last), now
            await asyncio.sleep(0.002)
        await connection.close()

    async def _connect(self) -> Any:
        while True:
            try:
                return await self._cluster.connect()
            except UNREACHABLE:
                await asyncio.sleep(0.01)

    def lost(self) -> list[int]:
        """What was acknowledged and is not there."""
        there = {row["id"] for row in self._cluster.ask("SELECT id FROM written")}
        return [number for number in self.acknowledged if number not in there]


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)

"""Synchronous replication: what was acknowledged is never lost, and a commit never waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import asyncpg
import pytest

from outgrow.engines.patroni.client import Client
from tests.support.fleets import run, wait_until
from tests.support.patroni import Cluster, Writer, inside, kill

SETTINGS = 'replication = "semi-sync"\nsync_timeout = "2s"\n'
ROUNDS = 5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("fleet") / "hello", SETTINGS)
    try:
        made.start()
        made.wait_until_whole()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def confirming(cluster: Cluster) -> str:
    (row,) = cluster.ask("SHOW synchronous_standby_names")
    return str(row[0])


def wait_until_confirmed(cluster: Cluster) -> None:
    cluster.wait_until_whole()
    wait_until(lambda: confirming(cluster).startswith("ANY 1"), "replicas that confirm")
    wait_until(lambda: sum(node.role == "synchronous replica" for node in cluster.nodes) == 2, "their roles")


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    """The primary's host dies in the middle of writes, time after time."""
    for _ in range(ROUNDS):
        wait_until_confirmed(cluster)
        before, writer = cluster.primary, Writer(cluster)

        async def scene(before: int = inside(before)[1], writer: Writer = writer) -> None:
            until = asyncio.Event()
            writers = asyncio.create_task(writer.write(until))
            async with asyncio.timeout(60):
                while len(writer.acknowledged) < 100:
                    await asyncio.sleep(0.005)
                kill(before)
                count = len(writer.acknowledged)
                while len(writer.acknowledged) < count + 50:
                    await asyncio.sleep(0.005)
            until.set()
            await writers

        run(scene())
        assert writer.lost() == []
        assert len(cluster.writable()) == 1


@pytest.mark.timeout(120)
def test_a_commit_goes_on_when_all_replicas_hang(cluster: Cluster) -> None:
    wait_until_confirmed(cluster)
    first, replicas = cluster.primary.name, [node for node in cluster.nodes if node.role != "primary"]
    stopped = [pid for node in replicas for pid in inside(node)[1:]]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        cluster.ask("CREATE TABLE goes_on AS SELECT 1", node=first)
        assert time.monotonic() - began < 12
        wait_until(lambda: any("no replica confirms" in text for text in cluster.status().warnings), "alarm")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until_confirmed(cluster)


@pytest.mark.timeout(120)
def test_a_strict_commit_fails_when_all_replicas_hang(cluster: Cluster) -> None:
    """The client is told that it does not know; it is not told that all is well."""
    wait_until_confirmed(cluster)
    host = str(cluster.primary.address).partition(":")[0]
    client = Client(cluster.password("patroni"))
    client.change("PATCH", host, "/config", {"synchronous_mode_strict": True})
    first, replicas = cluster.primary.name, [node for node in cluster.nodes if node.role != "primary"]
    stopped = [pid for node in replicas for pid in inside(node)[1:]]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
            cluster.ask("CREATE TABLE fails AS SELECT 1", node=first)
        assert time.monotonic() - began < 15
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        client.change("PATCH", host, "/config", {"synchronous_mode_strict": False})
    wait_until_confirmed(cluster)

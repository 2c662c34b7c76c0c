"""A primary and two replicas, as the fleet runs them: who may do what, what is secret, what is lost when."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from outgrow.cluster import NodeStatus
from outgrow.cluster.processes import Processes
from outgrow.engines.etcd import etcd
from outgrow.engines.patroni.client import Client
from outgrow.errors import EngineMissing, FleetError, Misuse
from outgrow.growth import primary, scale
from tests.support.fleets import run, wait_until
from tests.support.patroni import UNREACHABLE, Cluster, Writer, inside, kill, patroni_of, postmaster

LOSS_WITHIN_S = 3.0
HELD_MAX_S = 1.5
"""Less than one on a machine that is not shared with other tests."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("fleet") / "hello")
    try:
        made.start()
        made.wait_until_whole()
        yield made
    finally:
        made.end()
        assert made.pids() == []


# --- What it is -------------------------------------------------------------------------------------


def test_a_primary_and_two_replicas(cluster: Cluster) -> None:
    names = [node.name for node in cluster.status().nodes if node.tier in ("consensus", "database")]
    assert names == ["etcd-1", "etcd-2", "etcd-3", "postgres-1", "postgres-2", "postgres-3"]
    assert cluster.writable() == [cluster.primary.name]
    cluster.ask("CREATE TABLE shown AS SELECT 1")
    for node in cluster.hosts():
        wait_until(partial(cluster.ask, "SELECT 1 FROM shown", node=node), "the row")
    slots = cluster.ask("SELECT slot_name, active FROM pg_replication_slots WHERE slot_type = 'physical'")
    assert {row["slot_name"] for row in slots} == {
        node.name.replace("-", "_") for node in cluster.nodes if node.role == "replica"
    }
    (kept,) = cluster.ask("SHOW max_slot_wal_keep_size")
    assert kept[0] == "2GB"


def test_nobody_enters_without_the_password(cluster: Cluster) -> None:
    async def enters(url: str, password: str | None) -> None:
        await (await asyncpg.connect(url, password=password, timeout=5)).close()

    place = next(iter(cluster.hosts().values()))
    for user in ("outgrow_admin", "hello", "hello_owner", "outgrow_replication"):
        for wrong in (None, "", "wrong"):
            with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
                run(enters(f"postgresql://{user}@{place}/hello", wrong))
    (stored,) = cluster.ask("SELECT count(*) FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256$%'")
    assert stored[0] == 0
    rights = cluster.ask("SELECT rolname FROM pg_roles WHERE rolcanlogin AND (rolsuper OR rolreplication)")
    assert {row["rolname"] for row in rights} == {"outgrow_admin", "outgrow_replication"}


def test_nobody_asks_etcd_without_the_key(cluster: Cluster) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host = str(cluster.node("etcd-1").address).partition(":")[0]
    for port in (etcd.CLIENTS, etcd.PEERS):
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            connection.request("POST", "/v3/kv/range", "{}")
            connection.getresponse()
        connection.close()


def test_nobody_changes_a_node_without_the_password(cluster: Cluster) -> None:
    host = str(cluster.primary.address).partition(":")[0]
    with pytest.raises(FleetError, match="refuses"):
        Client("wrong").change("POST", host, "/restart", {})


def test_no_password_is_to_be_seen(cluster: Cluster) -> None:
    secrets = [cluster.password(role) for role in ("admin", "replication", "patroni", "migrations", "*")]
    assert len(set(secrets)) == 5
    shown = [path.read_text(errors="replace") for path in cluster.state.logs.iterdir()]
    shown.append(cluster.state.placement().endpoints.read_text())
    for pid in cluster.pids():
        shown.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
        shown.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
    assert not [secret for secret in secrets if any(secret in text for text in shown)]
    data = cluster.state.placement().data
    kept = [
        data / "replicated/etcd/tls/etcd.key",
        *data.glob("replicated/*.json"),
        *data.glob("replicated/*.pgpass"),
    ]
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0, path


def test_it_runs_without_root(cluster: Cluster) -> None:
    for pid in (cluster.node("etcd-1").pid, patroni_of(cluster.primary), postmaster(cluster.primary)):
        mapped = Path(f"/proc/{pid}/uid_map").read_text().split()
        assert mapped[0] == ("65534" if os.getuid() == 0 else str(os.getuid()))


def test_a_missing_program_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="etcd") as caught:
        etcd.find()
    assert "apt-get install etcd-server" in caught.value.hint


# --- What is lost, and for how long -----------------------------------------------------------------


def _init(host: NodeStatus) -> int:
    return inside(host)[1]


@pytest.mark.parametrize(
    "victim",
    [_init, patroni_of, postmaster],
    ids=["the whole host", "Patroni alone", "PostgreSQL alone"],
)
def test_the_primary_dies(cluster: Cluster, victim: Callable[[NodeStatus], int]) -> None:
    cluster.wait_until_whole()
    before = cluster.primary
    held = inside(before)
    writer = Writer(cluster)

    async def scene() -> None:
        until = asyncio.Event()
        writing = asyncio.create_task(writer.write(until))
        while len(writer.acknowledged) < 50:
            await asyncio.sleep(0.01)
        writer.gap_s = 0.0
        kill(victim(before))
        count, deadline = len(writer.acknowledged), time.monotonic() + 30
        while len(writer.acknowledged) < count + 50 or writer.gap_s < 0.1:
            assert time.monotonic() < deadline, "no writes"
            await asyncio.sleep(0.01)
        until.set()
        await writing

    run(scene())
    assert writer.gap_s < LOSS_WITHIN_S
    assert len(cluster.writable()) == 1
    cluster.wait_until_whole()
    assert cluster.primary.name != before.name
    if victim is not postmaster:
        assert not [pid for pid in held if Path(f"/proc/{pid}").exists()], "something has survived"
    failover = cluster.status().failovers[-1]
    assert (failover.before, failover.after) == (before.name, cluster.primary.name)
    wait_until(lambda: "recovery" in cluster.status().failovers[-1].phases, "the phases")


def test_a_planned_switchover(cluster: Cluster) -> None:
    cluster.wait_until_whole()
    before = cluster.primary.name
    after = next(node.name for node in cluster.nodes if node.name != before)
    writer = Writer(cluster)

    async def scene() -> primary.Change:
        until = asyncio.Event()
        writing = asyncio.create_task(writer.write(until))
        while len(writer.acknowledged) < 50:
            await asyncio.sleep(0.01)
        change = await primary.switchover(cluster.directory, after)
        count = len(writer.acknowledged)
        async with asyncio.timeout(30):
            while len(writer.acknowledged) < count + 50:
                await asyncio.sleep(0.01)
        until.set()
        await writing
        return change

    change = run(scene())
    assert change[:2] == (before, after) and change.seconds < HELD_MAX_S
    assert writer.lost() == [] and cluster.writable() == [after]
    cluster.wait_until_whole()
    told = cluster.status().failovers[-1]
    assert (told.before, told.after, told.planned) == (before, after, True)
    with pytest.raises(Misuse, match="is the primary already"):
        run(primary.switchover(cluster.directory, after))
    with pytest.raises(Misuse, match="there is no node postgres-9"):
        run(primary.switchover(cluster.directory, "postgres-9"))


def test_a_switchover_that_cannot_hold_the_writes_leaves_everything_as_it_was(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patroni waits for the word by then: it is told no, also by who is stopped (Ctrl-C), and forgets it."""
    cluster.wait_until_whole()
    before, timeline = cluster.primary.name, cluster.primary.role

    async def fails(processes: Processes, seconds: float) -> None:
        raise FleetError("a process of the application: it does not answer")

    async def hangs(processes: Processes, seconds: float) -> None:
        reached.set()
        await asyncio.Event().wait()

    async def stopped() -> None:
        switching = asyncio.create_task(primary.switchover(cluster.directory, None))
        await asyncio.to_thread(reached.wait, 30)
        switching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await switching

    reached = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(Processes, "hold", fails)
        with pytest.raises(FleetError, match="it does not answer"):
            run(primary.switchover(cluster.directory, None))
        patched.setattr(Processes, "hold", hangs)
        run(stopped())
    assert (cluster.primary.name, cluster.primary.role) == (before, timeline)
    assert cluster.writable() == [before]
    assert run(primary.switchover(cluster.directory, None)).before == before
    cluster.wait_until_whole()


def test_a_primary_that_hangs_is_given_up(cluster: Cluster) -> None:
    """It is not dead, so its lease has to run out; whoever does not want to wait ends it."""
    cluster.wait_until_whole()
    before = cluster.primary
    for pid in inside(before)[1:]:
        os.kill(pid, signal.SIGSTOP)
    # The replicas give it up after sync_timeout; its lease lasts for 20 s.
    wait_until(lambda: [each.name for each in cluster.nodes] == [before.name], "replicas that do not follow")
    assert cluster.writable() == [], "nobody else takes over"
    change = run(primary.failover(cluster.directory))
    assert change.before == before.name != change.after
    assert cluster.writable() == [change.after]
    cluster.wait_until_whole()


def test_nobody_takes_over_while_it_is_paused(cluster: Cluster) -> None:
    cluster.wait_until_whole()
    before = cluster.primary
    run(primary.pause(cluster.directory, paused=True))
    try:
        wait_until(lambda: any("failover" in text for text in cluster.status().warnings), "a warning")
        kill(_init(before))
        wait_until(lambda: cluster.node(before.name).restarts > before.restarts, "its death to be seen")
        wait_until(lambda: cluster.node(before.name).state == "starting", "its start")
        time.sleep(2)
        assert cluster.writable() == []
    finally:
        run(primary.pause(cluster.directory, paused=False))
    cluster.wait_until_whole()


def test_one_node_of_etcd_dies(cluster: Cluster) -> None:
    cluster.wait_until_whole()
    before = cluster.primary.name
    cluster.kill("etcd-1")
    cluster.ask("CREATE TABLE one_less (id int)")
    wait_until(lambda: cluster.node("etcd-1").restarts > 0, "its death to be seen")
    wait_until(lambda: cluster.node("etcd-1").state == "ready", "etcd again")
    assert cluster.primary.name == before


def test_a_node_of_etcd_that_has_lost_its_data_comes_back(cluster: Cluster) -> None:
    """The others take it in anew: after that another one may die."""
    cluster.wait_until_whole()
    before = cluster.primary.name
    data = cluster.state.placement().data / "replicated" / "etcd" / "etcd-2"
    cluster.kill("etcd-2")
    data.rename(data.with_name("gone"))
    wait_until(lambda: cluster.node("etcd-2").restarts > 0, "its death to be seen")
    wait_until(lambda: cluster.node("etcd-2").state == "ready", "etcd-2 again")
    assert (data / "member").exists()
    cluster.kill("etcd-3")
    cluster.ask("CREATE TABLE taken_in (id int)")
    wait_until(lambda: cluster.node("etcd-3").restarts > 0, "its death to be seen")
    wait_until(lambda: cluster.node("etcd-3").state == "ready", "etcd-3 again")
    assert cluster.primary.name == before


def test_all_of_etcd_hangs(cluster: Cluster) -> None:
    """As long as the nodes see each other, the primary goes on: nobody else can have become one."""
    cluster.wait_until_whole()
    before = cluster.primary.name
    pids = [cluster.node(f"etcd-{number}").pid for number in (1, 2, 3)]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 8  # without failsafe mode it would have stepped back after 3
        while time.monotonic() < deadline:
            cluster.ask("SELECT txid_current()")
            assert cluster.writable() == [before]
            time.sleep(0.5)
    finally:
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGCONT)
    cluster.wait_until_whole()
    assert cluster.primary.name == before


@pytest.mark.timeout(120)
def test_a_replica_whose_data_is_corrupted_is_rebuilt_when_somebody_says_so(cluster: Cluster) -> None:
    cluster.wait_until_whole()
    replica = next(node for node in cluster.nodes if node.role != "primary")
    with pytest.raises(Misuse, match="is the primary"):
        run(primary.rebuild(cluster.directory, cluster.primary.name))
    with pytest.raises(Misuse, match="there is no node postgres-9"):
        run(primary.rebuild(cluster.directory, "postgres-9"))
    cluster.ask("CREATE TABLE copied_anew AS SELECT 1")
    data = cluster.state.placement().data / "replicated" / replica.name
    kill(postmaster(replica))
    (data / "global" / "pg_control").write_bytes(bytes(8192))
    wait_until(lambda: any(replica.name in text for text in cluster.status().warnings), "a warning", 60)
    assert len(cluster.writable()) == 1
    assert run(primary.rebuild(cluster.directory, replica.name)) > 0
    cluster.wait_until_whole()
    assert cluster.ask("SELECT 1 FROM copied_anew", node=replica.name)


@pytest.mark.timeout(180)
def test_a_replica_that_needs_a_log_that_is_gone_copies_everything_anew(cluster: Cluster) -> None:
    """By itself: it was away for longer than its slot keeps the log."""
    cluster.wait_until_whole()
    first, replica = cluster.primary, next(node for node in cluster.nodes if node.role != "primary")
    host, client = str(first.address).partition(":")[0], Client(cluster.password("patroni"))
    small = {"max_slot_wal_keep_size": "32MB", "wal_keep_size": "16MB"}
    usual = {"max_slot_wal_keep_size": "2GB", "wal_keep_size": "256MB"}
    client.change("PATCH", host, "/config", {"postgresql": {"parameters": small}})
    wait_until(lambda: cluster.ask("SHOW wal_keep_size")[0][0] == "16MB", "the settings")
    stopped = inside(replica)[1:]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        following = partial(cluster.ask, "SELECT count(*) FROM pg_stat_replication", node=first.name)
        wait_until(lambda: following()[0][0] == 1, "its connection to be given up")
        # Eight segments of the log that hold nearly nothing.
        for _ in range(8):
            cluster.ask("SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()", node=first.name)
        cluster.ask("CREATE TABLE gone AS SELECT 1", node=first.name)
        wait_until(lambda: _kept(cluster, replica.name) >= 100 << 20, "what is kept for it to be told")
        cluster.ask("CHECKPOINT", node=first.name)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    there = "SELECT 1 WHERE to_regclass('gone') IS NOT NULL"
    client.change("PATCH", host, "/config", {"postgresql": {"parameters": usual}})

    def copied() -> bool:
        try:
            return bool(cluster.ask(there, node=replica.name))
        except UNREACHABLE:
            return False

    wait_until(copied, "the whole database", 90)
    cluster.wait_until_whole()
    log = (cluster.state.logs / f"{replica.name}.log").read_text(errors="replace")
    assert "has already been removed" in log, "it was not away for long enough"


def _kept(cluster: Cluster, name: str) -> int:
    """Bytes of the log that the primary keeps for it."""
    return cluster.node(name).kept or 0


@pytest.mark.timeout(180)
def test_more_and_fewer_replicas(cluster: Cluster) -> None:
    """Also when the primary is among those that go. What happened before is not forgotten."""
    cluster.wait_until_whole()
    happened = [(each.before, each.after) for each in cluster.status().failovers]
    file = cluster.directory / "outgrow.toml"
    run(scale.scale(cluster.directory, {"database.replicas": 3}, "replication", tell=cluster.changes.append))
    assert list(cluster.hosts()) == [f"postgres-{number}" for number in (1, 2, 3, 4)]
    assert [(each.before, each.after) for each in cluster.status().failovers] == happened
    assert "replicas = 3" in file.read_text()
    cluster.wait_until_whole()
    cluster.ask("CREATE TABLE copied AS SELECT 1")
    there = "SELECT 1 WHERE to_regclass('copied') IS NOT NULL"
    wait_until(partial(cluster.ask, there, node="postgres-4"), "the table")
    if cluster.primary.name != "postgres-4":
        run(primary.switchover(cluster.directory, "postgres-4"))
        cluster.wait_until_whole()
    run(scale.scale(cluster.directory, {"database.replicas": 2}, "replication", tell=cluster.changes.append))
    assert list(cluster.hosts()) == [f"postgres-{number}" for number in (1, 2, 3)]
    assert not (cluster.state.placement().data / "replicated/postgres-4").exists()
    cluster.wait_until_whole()
    assert cluster.primary.name == "postgres-1"
    with pytest.raises(Misuse, match="moves to other nodes"):
        run(scale.scale(cluster.directory, {"database.replicas": 0}, "replication", tell=print))


def test_all_data_is_kept_between_runs(cluster: Cluster) -> None:
    cluster.wait_until_whole()
    cluster.ask("CREATE TABLE kept AS SELECT 7 AS id")
    cluster.end()
    assert cluster.pids() == []
    cluster.start()
    assert cluster.ask("SELECT id FROM kept")[0]["id"] == 7
    cluster.wait_until_whole()
    cluster.kill_supervisor()
    cluster.start()
    assert cluster.ask("SELECT id FROM kept")[0]["id"] == 7
    cluster.wait_until_whole()
    config = json.loads((cluster.state.placement().data / "replicated/cluster.json").read_text())["config"]
    assert config["failsafe_mode"] is True

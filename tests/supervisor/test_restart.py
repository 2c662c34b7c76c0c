"""A service that dies comes back, until it has died too often; its sockets stay open meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from outgrow.supervisor.handover import group
from outgrow.supervisor.node import describe
from outgrow.workload import Address, Probe, Restart, Workload
from tests.supervisor.conftest import (
    SERVER,
    Supervised,
    eventually,
    forever,
    free_address,
    kill,
    number_in,
    python,
    runs,
    shell,
)

QUICK = Restart(first_delay_s=0.01, delay_max_s=0.05, limit=4)


async def ask(address: Address) -> str:
    """One request. Raises OSError when it is refused."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        return (await reader.read()).decode().rpartition("\r\n")[2]
    finally:
        writer.close()


async def test_killed_and_back_without_a_refused_connection(fleet: Supervised) -> None:
    address = free_address()
    restart = Restart(first_delay_s=0.5)
    app = Workload(
        "app", python(SERVER), listen=(address,), readiness=Probe("http", address), restart=restart
    )
    await fleet.start(app)
    before = kill(fleet["app"].pid)
    await eventually(lambda: fleet["app"].state == "restarting", "its death to be seen")
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(ask(address) for _ in range(50)))
    await eventually(lambda: fleet["app"].state == "ready", "the node again")
    assert set(answers) == {str(fleet["app"].pid)} and str(before) not in answers
    assert fleet["app"].restarts == 1 and fleet.notes["app"].pid == fleet["app"].pid
    assert fleet.states("app") == ["starting", "ready", "restarting", "starting", "ready"]
    assert any(change.text.startswith("killed by SIGKILL; again in 0.5 s") for change in fleet.changes)


BOTH = """
import os, select, socket
listeners = [socket.socket(fileno=int(each)) for each in os.environ["OUTGROW_LISTEN_FDS"].split(",")]
for each in listeners:
    each.listen()
while True:
    for ready in select.select(listeners, [], [])[0]:
        connection, _ = ready.accept()
        connection.recv(65536)
        body = str(os.getpid()).encode()
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
        connection.close()
"""
"""Listens itself, also where its predecessor's sockets were silenced, as every server of ours does."""


def of_a_pool(name: str, address: Address, delay_s: float = 0.5) -> Workload:
    own = free_address()
    restart = Restart(first_delay_s=delay_s)
    return Workload(
        name, python(BOTH), listen=(address, own), pool="app", readiness=Probe("http", own), restart=restart
    )


async def test_of_a_pool_it_refuses_until_it_serves_again(fleet: Supervised) -> None:
    """A balancer then asks another at once; the last one that is left keeps those who connect."""
    one, other = free_address(), free_address()
    await fleet.start(of_a_pool("app-1", one), of_a_pool("app-2", other))
    for _ in range(2):
        kill(fleet["app-1"].pid)
        await eventually(lambda: fleet["app-1"].state == "restarting", "its death to be seen")
        with pytest.raises(ConnectionRefusedError):
            await ask(one)
        assert await ask(other) == str(fleet["app-2"].pid)
        await eventually(lambda: fleet["app-1"].state == "ready", "it again")
        assert await ask(one) == str(fleet["app-1"].pid)
    await fleet.supervisor.remove(["app-1"])
    kill(fleet["app-2"].pid)
    await eventually(lambda: fleet["app-2"].state == "restarting", "its death to be seen")
    assert await ask(other) == str(fleet["app-2"].pid)


async def test_at_a_shared_address_the_others_get_its_connections(fleet: Supervised) -> None:
    address = free_address()
    await fleet.start(of_a_pool("app-1", address, 0.3), of_a_pool("app-1.2", address))
    left = str(fleet["app-1.2"].pid)
    kill(fleet["app-1"].pid)
    await eventually(lambda: fleet["app-1"].state == "restarting", "its death to be seen")
    assert {await ask(address) for _ in range(30)} == {left}
    await eventually(lambda: fleet["app-1"].state == "ready", "it again")
    assert {await ask(address) for _ in range(60)} == {left, str(fleet["app-1"].pid)}
    assert [each.name for each in group(fleet.supervisor.nodes, address)] == ["app-1.2", "app-1"]
    await fleet.supervisor.remove(["app-1.2"])
    assert await ask(address) == str(fleet["app-1"].pid)


async def test_given_up_and_then_its_port_is_free_again(fleet: Supervised, tmp_path: Path) -> None:
    address = free_address()
    argv = shell(f"test -e {tmp_path}/broken && exit 7; exec sleep 1000")
    await fleet.start(Workload("app", argv, restart=QUICK, listen=(address,)), forever("db"))
    (tmp_path / "broken").touch()
    kill(fleet["app"].pid)
    await eventually(lambda: fleet["app"].state == "failed", "to be given up")
    assert fleet["app"].text == "exit code 7; died 4 times within 60 s" and fleet["app"].restarts == 3
    with pytest.raises(ConnectionRefusedError):
        await ask(address)
    assert fleet["db"].state == "ready"
    await fleet.stop()
    assert fleet["app"].state == "failed", "stopping does not hide it"


async def test_not_ready_again_counts_as_a_death(fleet: Supervised, tmp_path: Path) -> None:
    probe = Probe("command", argv=shell(f"test ! -e {tmp_path}/broken"), timeout_s=0.2)
    await fleet.start(forever("app", readiness=probe, restart=QUICK))
    (tmp_path / "broken").touch()
    kill(fleet["app"].pid)
    await eventually(lambda: fleet["app"].state == "failed", "to be given up")
    assert fleet["app"].text.startswith("node app was not ready within 0.2 s") and fleet.processes() == []


async def test_never_ready_again_is_given_up_however_long_that_takes(
    fleet: Supervised, tmp_path: Path
) -> None:
    slow = Restart(first_delay_s=0.01, delay_max_s=0.01, limit=3, window_s=0.3)
    probe = Probe("command", argv=shell(f"test ! -e {tmp_path}/broken"), timeout_s=0.4, interval_s=0.05)
    await fleet.start(forever("app", readiness=probe, restart=slow))
    (tmp_path / "broken").touch()
    kill(fleet["app"].pid)
    await eventually(lambda: fleet["app"].state == "failed", "to be given up")
    assert fleet["app"].text.endswith("; died 3 times without being ready in between")
    assert fleet["app"].restarts == 2 and fleet.processes() == []


async def test_ready_in_between_it_is_started_as_long_as_it_dies_seldom(fleet: Supervised) -> None:
    seldom = Restart(first_delay_s=0.01, limit=2, window_s=0.001)
    await fleet.start(forever("app", restart=seldom))
    for count in (1, 2, 3):
        kill(fleet["app"].pid)
        await eventually(
            lambda count=count: fleet["app"].state == "ready" and fleet["app"].restarts == count,  # type: ignore[misc]
            "the node again",
        )


async def test_what_its_predecessor_started_ends_first(fleet: Supervised, tmp_path: Path) -> None:
    child = tmp_path / "child"
    app = shell(f"trap '' TERM; sleep 1000 & echo $! > {child}; wait")
    await fleet.start(Workload("app", app, readiness=Probe("command", argv=("test", "-s", str(child)))))
    grandchild = number_in(child)
    assert grandchild is not None and runs(grandchild)
    kill(fleet["app"].pid)
    await eventually(lambda: fleet["app"].state == "restarting", "its death to be seen")
    await eventually(lambda: not runs(grandchild), "the end of what it had started")


async def test_notes_that_cannot_be_written_do_not_stop_the_supervision(fleet: Supervised) -> None:
    def full(notes: object) -> None:
        raise OSError(28, "No space left on device")

    fleet.supervisor._noted = full
    await fleet.start(forever("app", restart=QUICK))
    before = kill(fleet["app"].pid)
    await eventually(lambda: fleet["app"].state == "ready" and fleet["app"].pid != before, "the node again")


async def test_an_exit_with_0_is_a_death_too(fleet: Supervised, tmp_path: Path) -> None:
    await fleet.start(Workload("app", shell(f"test -e {tmp_path}/x || exec sleep 1000"), restart=QUICK))
    (tmp_path / "x").touch()
    os.kill(fleet["app"].pid, signal.SIGTERM)
    await eventually(lambda: fleet["app"].state == "failed", "to be given up")
    assert fleet["app"].text.startswith("exit code 0")


def test_exit_codes_in_words() -> None:
    words = [describe(code) for code in (3, -signal.SIGKILL, -signal.SIGRTMIN - 1)]
    assert words == ["exit code 3", "killed by SIGKILL", f"killed by signal {signal.SIGRTMIN + 1}"]

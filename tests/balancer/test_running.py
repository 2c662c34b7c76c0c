"""The processes: who may ask them, how they end, and what the standby is for."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path

import pytest

from outgrow.engines.envoy.envoy import find
from outgrow.errors import PortTaken
from outgrow.load.client import Answer
from outgrow.supervisor.ports import listen
from tests.support.balancing import Balanced, balanced, eventually, load, request, send


async def test_what_is_under_way_ends_before_it_does(tmp_path: Path) -> None:
    async with balanced(tmp_path, app=1) as it, load(it) as clients:
        it["app-1"].seconds = 4.0
        slow = asyncio.create_task(clients.send(request("POST", body=b"x")))
        await eventually(lambda: it["app-1"].count, "the request")
        it["app-1"].seconds = 0.0
        ending = asyncio.create_task(it.supervisor.remove(["balancer-1"]))
        announced: object = None
        while not (isinstance(announced, Answer) and (b"connection", b"close") in announced.headers):
            announced = await send(it.address, request())
            assert isinstance(announced, Answer), "it announces its end before it refuses"
        with pytest.raises(ConnectionRefusedError):
            while True:
                _, writer = await asyncio.open_connection(it.address.host, it.address.port)
                writer.close()
                await asyncio.sleep(0.05)
        assert not slow.done(), "it refuses before what is under way has ended"
        answer = await slow
        assert isinstance(answer, Answer) and answer.status == 200
        async with asyncio.timeout(2):
            await ending


async def test_it_ends_when_requests_never_do(tmp_path: Path) -> None:
    async with balanced(tmp_path, app=1) as it, load(it) as clients:
        it["app-1"].seconds = 3600
        slow = asyncio.create_task(clients.send(request()))
        await eventually(lambda: it["app-1"].count, "the request")
        async with asyncio.timeout(13):
            await it.supervisor.remove(["balancer-1"])
        assert not isinstance(await slow, Answer)


async def test_the_admin_interface_is_for_this_user_alone(tmp_path: Path) -> None:
    async with balanced(tmp_path) as it:
        for name in ("admin.sock", "latency.sock"):
            found = (it.folder / name).stat()
            assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
        for pid in processes(it):
            assert listens(pid) <= {it.address.port}
        for path in ("/stats", "/config_dump", "/quitquitquit", "/ready"):
            answer = await send(it.address, request("POST", path=path, body=b"x"))
            assert isinstance(answer, Answer) and answer.body == b"ok", "it is the application's"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in it.folder.glob("*.json")}
        assert set(modes.values()) == {0o600} and len(modes) == 8


def processes(it: Balanced) -> list[int]:
    """The node and its children."""
    pid = it.supervisor.nodes["balancer-1"].pid
    assert pid is not None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def listens(pid: int) -> set[int]:
    """The TCP ports on which it listens."""
    inodes = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            found.add(int(fields[1].split(":")[1], 16))
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to drop")
async def test_it_has_no_root(tmp_path: Path) -> None:
    async with balanced(tmp_path) as it:
        for pid in processes(it):
            mapping = Path(f"/proc/{pid}/uid_map").read_text().split()
            assert mapping[:2] == ["65534", "0"]


async def test_a_port_that_is_taken_is_told_at_once(tmp_path: Path) -> None:
    it = Balanced(tmp_path, "", {"app": 1})
    other = listen(it.address)
    try:
        with pytest.raises(PortTaken):
            await it.start()
    finally:
        other.close()
        await it.stop()


async def test_envoy_dies_and_is_there_again(tmp_path: Path) -> None:
    async with balanced(tmp_path) as it:
        before = it.supervisor.nodes["balancer-1"].pid
        for pid in processes(it)[::-1]:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: it.supervisor.nodes["balancer-1"].pid not in (None, before), "a new one")
        await eventually(lambda: it.supervisor.nodes["balancer-1"].state == "ready", "it to be ready")
        answer = await send(it.address, request())
        assert isinstance(answer, Answer) and answer.status == 200


async def test_our_process_does_not_outlive_its_envoy(tmp_path: Path) -> None:
    async with balanced(tmp_path) as it:
        node = it.supervisor.nodes["balancer-1"]
        _, envoy = processes(it)
        os.kill(envoy, signal.SIGKILL)
        await eventually(lambda: node.restarts == 1 and node.state == "ready", "a restart")


async def test_the_standby_serves_when_the_first_is_killed(tmp_path: Path) -> None:
    async with balanced(tmp_path, "balancer.copies = 2\nbalancer.tls.enabled = false\n") as it:
        first, second = it.engine.addresses.values()
        assert first.port == second.port and second.host == it.placement.host
        for address in (first, second):
            answer = await send(address, request())
            assert isinstance(answer, Answer) and answer.status == 200
        for pid in processes(it)[::-1]:
            os.kill(pid, signal.SIGKILL)
        answers = [await send(second, request()) for _ in range(50)]
        assert all(isinstance(each, Answer) and each.status == 200 for each in answers)
        added = it.add()
        await added.start()
        it.change()
        await eventually(lambda: added.checked, "the standby to know of a new server")


def test_envoy_is_found() -> None:
    assert find().name == "envoy"

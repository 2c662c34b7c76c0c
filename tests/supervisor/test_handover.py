"""One address, several owners: nobody outside the fleet gets in, and an owner leaves without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from outgrow.errors import PortTaken
from outgrow.supervisor import ports, steering
from outgrow.supervisor.handover import Member, among
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.supervisor import Supervisor
from outgrow.workload import Address, Probe, Workload
from tests.support.ports import free_port

SERVE = """
import asyncio, os, signal, socket, sys

async def answer(reader, writer):
    await reader.readline()
    writer.write(sys.argv[1].encode())
    await writer.drain()
    writer.close()

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    inherited = os.environ.get("OUTGROW_LISTEN_FDS")
    if inherited:
        listener = socket.socket(fileno=int(inherited))
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((sys.argv[2], int(sys.argv[3])))
    server = await asyncio.start_server(answer, sock=listener, backlog=2048)
    await stop.wait()
    server.close()
    await asyncio.sleep(0.3)

asyncio.run(main())
"""


@pytest.fixture
def address() -> Address:
    return Address("127.91.4.1", free_port())


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = Supervisor(Logs(tmp_path), "handover")
    yield made
    await made.stop()


def ours(name: str, address: Address) -> Workload:
    """The supervisor opens its socket."""
    argv = (sys.executable, "-c", SERVE, name)
    return Workload(name=name, argv=argv, listen=(address,), readiness=Probe("tcp", address))


def theirs(name: str, address: Address) -> Workload:
    """It opens its socket itself, as Envoy does."""
    argv = (sys.executable, "-c", SERVE, name, address.host, str(address.port))
    return Workload(name=name, argv=argv, claims=(address,), readiness=Probe("tcp", address))


class Clients:
    """They connect all the time, each time anew, and note who answers and what goes wrong."""

    def __init__(self, address: Address) -> None:
        self.answers: list[str] = []
        self.wrong: list[str] = []
        self._address = address
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Clients:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(8)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                self.answers.append(await self._ask())
            except (OSError, TimeoutError, EOFError) as error:
                self.wrong.append(repr(error))

    async def _ask(self) -> str:
        reader, writer = await asyncio.open_connection(self._address.host, self._address.port)
        try:
            writer.write(b"who?\n")
            async with asyncio.timeout(10):
                answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        if not answer:
            raise EOFError("no answer")
        return answer.decode()

    async def more(self, count: int = 300) -> set[str]:
        """Who has answered the next so many."""
        before = len(self.answers)
        async with asyncio.timeout(30):
            while len(self.answers) < before + count:
                await asyncio.sleep(0.01)
        return set(self.answers[-count // 2 :])


async def until_both_listen(address: Address) -> None:
    async with asyncio.timeout(10):
        while steering.listeners(address) < 2:
            await asyncio.sleep(0.02)


async def test_an_owner_leaves_and_comes_back(supervisor: Supervisor, address: Address) -> None:
    await supervisor.start([ours("old", address)])
    async with Clients(address) as clients:
        for _ in range(3):
            await supervisor.start([theirs("new", address)])
            await until_both_listen(address)
            assert await clients.more() == {"old", "new"}
            await supervisor.remove(["old"])
            assert await clients.more() == {"new"}
            await supervisor.start([ours("old", address)])
            await until_both_listen(address)
            await supervisor.remove(["new"])
            assert await clients.more() == {"old"}
    assert clients.wrong == []


async def test_one_of_several_leaves(supervisor: Supervisor, address: Address) -> None:
    await supervisor.start([ours(name, address) for name in ("a", "b", "c")])
    async with Clients(address) as clients:
        assert await clients.more() == {"a", "b", "c"}
        await supervisor.remove(["b", "c"])
        assert await clients.more() == {"a"}
        await supervisor.start([ours("d", address)])
        assert await clients.more() == {"a", "d"}, "no program chooses any more"
    assert clients.wrong == []


async def test_a_process_is_replaced_and_who_connects_meanwhile_waits(
    supervisor: Supervisor, address: Address
) -> None:
    await supervisor.start([ours("a", address)])
    async with Clients(address) as clients:
        assert await clients.more() == {"a"}
        await supervisor.replace(replace(ours("b", address), name="a"))
        assert supervisor.nodes["a"].state == "ready"
        assert await clients.more() == {"b"}
        pid = supervisor.nodes["a"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await clients.more() == {"b"}, "it is watched like any other"
    assert len(clients.wrong) <= 8, "what the killed one had accepted"


@pytest.fixture
def stranger(address: Address) -> Iterator[socket.socket]:
    """Somebody else of this user who would share."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((address.host, address.port))
        listener.listen()
        yield listener


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("made", [ours, theirs])
async def test_nobody_shares_by_accident(supervisor: Supervisor, address: Address, made: object) -> None:
    with pytest.raises(PortTaken):
        await supervisor.start([made("mine", address)])  # type: ignore[operator]


@pytest.mark.usefixtures("stranger")
async def test_not_on_every_address_either(supervisor: Supervisor, address: Address) -> None:
    everywhere = Address("0.0.0.0", address.port)
    with pytest.raises(PortTaken):
        await supervisor.start([ours("one", Address("127.91.4.2", address.port)), ours("all", everywhere)])


def test_another_fleet_finds_the_port_taken(address: Address) -> None:
    for how in (ports.listen, ports.claim):
        with how(address), pytest.raises(PortTaken):
            ports.listen(address)
    with ports.listen(address), ports.listen(address, joins=True):
        assert steering.listeners(address) == 2
    assert steering.listeners(address) == 0
    with ports.listen(Address("::1", address.port)):
        assert steering.listeners(Address("::1", address.port)) == 1


@pytest.mark.parametrize(
    ("going", "found"),
    [
        ({"a"}, (2, 3)),
        ({"c"}, (0, 3)),
        ({"a", "b"}, (3, 2)),
        ({"b"}, None),
        ({"a", "b", "c"}, None),
        ({"x"}, None),
    ],
)
def test_those_that_stay_stand_together(going: set[str], found: tuple[int, int] | None) -> None:
    assert among([Member("a", 1, 2), Member("b", 2, 1), Member("c", 3, 2)], going) == found

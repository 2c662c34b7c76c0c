"""Each algorithm does what its name says, with servers that are equal, unequal and slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.support.balancing import Balanced, Load, balanced, eventually, load, quantile, request

CHECKS = 'balancer.health.check = "shallow"\n'


def using(algorithm: str) -> str:
    return f'balancer.algorithm = "{algorithm}"\n{CHECKS}'


async def test_round_robin_gives_each_the_same_however_slow(tmp_path: Path) -> None:
    async with balanced(tmp_path, using("round-robin")) as it, load(it) as clients:
        it["app-1"].seconds = 0.05
        await clients.many(600)
        assert not clients.failed
        assert list(it.shares().values()) == pytest.approx([1 / 3] * 3, abs=0.01)


async def test_round_robin_knows_no_weights(tmp_path: Path) -> None:
    async with balanced(tmp_path, using("round-robin"), app=1) as it, load(it) as clients:
        await it.add(weight=5).start()
        it.change()
        await eventually(lambda: it["app-2"].checked, "a check")
        await clients.many(300)
        assert list(it.shares().values()) == pytest.approx([0.5, 0.5], abs=0.02)


async def test_weights(tmp_path: Path) -> None:
    async with balanced(tmp_path, using("weighted-round-robin"), app=1) as it, load(it) as clients:
        for weight in (3, 6):
            await it.add(weight=weight).start()
        it.change()
        await eventually(lambda: it["app-3"].checked, "a check")
        await asyncio.sleep(0.1)
        await clients.many(1000)
        assert list(it.shares().values()) == pytest.approx([0.1, 0.3, 0.6], abs=0.02)


async def test_weights_of_a_person(tmp_path: Path) -> None:
    weights = "balancer.weights = { app-2 = 3, app-3 = 6 }\n"
    async with balanced(tmp_path, using("weighted-round-robin") + weights) as it, load(it) as clients:
        await clients.many(1000)
        assert list(it.shares().values()) == pytest.approx([0.1, 0.3, 0.6], abs=0.02)


@pytest.mark.alone
async def test_least_connections_keeps_servers_equally_busy(tmp_path: Path) -> None:
    """With the same number under way, a server three times slower gets a third of the requests."""
    async with balanced(tmp_path, using("least-connections")) as it, load(it) as clients:
        for each in it.upstreams.values():
            each.seconds = 0.02
        await clients.many(900, concurrency=12)
        assert list(it.shares().values()) == pytest.approx([1 / 3] * 3, abs=0.05), "equal servers"
        it["app-1"].seconds = 0.06
        await clients.many(1400, concurrency=12)
        assert list(it.shares().values()) == pytest.approx([1 / 7, 3 / 7, 3 / 7], abs=0.05)


async def test_least_connections_avoids_one_that_hangs(tmp_path: Path) -> None:
    async with balanced(tmp_path, using("least-connections")) as it, load(it) as clients:
        it["app-1"].seconds = 3.0
        await clients.at_rate(200, 1.5)
        assert it.shares()["app-1"] < 0.02


async def from_address(it: Balanced, client: str) -> str:
    reader, writer = await asyncio.open_connection(it.address.host, it.address.port, local_addr=(client, 0))
    writer.write(request())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    return next(line.partition(": ")[2] for line in head.splitlines() if line.startswith("x-server"))


CLIENTS = [f"127.{a}.{b}.9" for a in range(20, 40) for b in range(10)]


@pytest.mark.parametrize("layer", [7, 4])
async def test_the_same_address_the_same_server(tmp_path: Path, layer: int) -> None:
    """And when one goes, only its own clients move."""
    async with balanced(tmp_path, using("ip-hash") + f"balancer.layer = {layer}\n", app=4) as it:
        before = {client: await from_address(it, client) for client in CLIENTS}
        assert before == {client: await from_address(it, client) for client in CLIENTS}
        assert all(30 <= count <= 70 for count in Counter(before.values()).values()), Counter(before.values())
        gone = it.servers.pop().name
        it.change()
        await asyncio.sleep(0.3)
        after = {client: await from_address(it, client) for client in CLIENTS}
        assert gone not in after.values()
        stayed = [client for client in CLIENTS if before[client] != gone]
        moved = [client for client in stayed if after[client] != before[client]]
        assert len(moved) <= 0.05 * len(stayed), f"{len(moved)} of {len(stayed)} moved without need"


async def equal_and_slow(it: Balanced, clients: Load, *, slower: float) -> tuple[float, float]:
    """p99 with equal servers, and with one that is `slower` times slower, once it has had two seconds."""
    usual = 0.03  # so that what a busy machine adds is small beside it
    for each in it.upstreams.values():
        each.seconds = usual
    await clients.at_rate(200, 1.0)
    equal = quantile(await clients.at_rate(200, 3.0), 0.99)
    it["app-1"].seconds = usual * slower
    await clients.at_rate(200, 2.5)
    it.shares()
    return equal, quantile(await clients.at_rate(200, 5.0), 0.99)


@pytest.mark.alone
async def test_least_response_time_avoids_a_slow_server(tmp_path: Path) -> None:
    equal, slow = {}, {}
    for name in ("round-robin", "least-response-time"):
        async with balanced(tmp_path / name, using(name), app=4) as it, load(it) as clients:
            equal[name], slow[name] = await equal_and_slow(it, clients, slower=10)
            share = it.shares()["app-1"]
            assert not clients.failed
            assert share == pytest.approx(0.25, abs=0.02) if name == "round-robin" else share < 0.012
    assert slow["least-response-time"] * 3 < slow["round-robin"]
    assert equal["least-response-time"] < equal["round-robin"] + 0.03


async def test_least_response_time_gives_equal_servers_the_same(tmp_path: Path) -> None:
    async with balanced(tmp_path, using("least-response-time"), app=4) as it, load(it) as clients:
        for each in it.upstreams.values():
            each.seconds, each.cost = 0.005, lambda path: float(path[1:])
        mixed = [request(path=f"/{cost}") for cost in (1, 1, 1, 1, 1, 2, 2, 8, 1, 1, 30)]
        await clients.at_rate(300, 6.0, mixed)
        assert list(it.shares().values()) == pytest.approx([0.25] * 4, abs=0.06)


async def test_least_response_time_takes_a_server_back_that_is_fast_again(tmp_path: Path) -> None:
    async with balanced(tmp_path, using("least-response-time")) as it, load(it) as clients:
        for each in it.upstreams.values():
            each.seconds = 0.01
        it["app-1"].seconds = 0.1
        await clients.at_rate(200, 3.0)
        it.shares()
        await clients.at_rate(200, 1.0)
        assert it.shares()["app-1"] < 0.05
        it["app-1"].seconds = 0.01
        await clients.at_rate(200, 8.0)
        it.shares()
        await clients.at_rate(200, 1.0)
        assert it.shares()["app-1"] > 0.2


async def test_least_response_time_is_not_attracted_by_errors(tmp_path: Path) -> None:
    async with balanced(tmp_path, using("least-response-time")) as it, load(it) as clients:
        for each in it.upstreams.values():
            each.seconds = 0.02
        it["app-1"].seconds, it["app-1"].status = 0.0, 500
        await clients.at_rate(200, 3.0)
        it.shares()
        await clients.at_rate(200, 2.0)
        assert it.shares()["app-1"] < 0.05

"""A shared cache of three nodes: keys are spread, and one node that is lost takes only its own with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from outgrow.runtime import scope as request
from outgrow.runtime.cache import redis, shared
from outgrow.runtime.ring import Ring
from tests.support.cache import CacheServers, Data, Process, session

TAGS = [f"tag-{number}" for number in range(60)]


@pytest.fixture
async def two(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Process, Process]]:
    monkeypatch.setattr(shared, "GRACE_S", 0.0)
    monkeypatch.setattr(redis, "RETRY_MAX_S", 0.1)
    server, data = CacheServers.made(3), Data()
    made = Process(data, server), Process(data, server)
    try:
        server.start()
        await asyncio.gather(*(process.open() for process in made))
        yield made
        await asyncio.gather(*(process.close() for process in made))
    finally:
        server.stop()


async def everything(process: Process) -> list[int]:
    """What it reads of every tag, and with which loads."""
    before = process.loads
    found = [await process.read(tag) for tag in TAGS]
    assert found == [process.data.versions.get(tag, 0) for tag in TAGS]
    return [process.loads - before]


def alive(process: Process, lost: int) -> set[str]:
    """The tags whose key and tag are both on other nodes than this one."""
    ring = Ring([node.url for node in process.server.nodes])
    return {tag for tag in TAGS if lost not in (ring.node(tag), ring.node(f"version:{tag}"))}


async def test_every_node_has_its_share(two: tuple[Process, Process]) -> None:
    one, other = two
    await everything(one)
    await one.shared.barrier()
    assert await everything(other) == [0], "what one has loaded the other finds"
    for node in two[0].server.nodes:
        with node.client as client:
            assert sum(name.startswith("outgrow:test:cache:e:") for name in client.scan_iter()) > 10


async def test_one_that_is_lost_takes_only_its_own_with_it(two: tuple[Process, Process]) -> None:
    one, other = two
    node = one.server.nodes[1]
    stay = alive(one, 1)
    assert 10 < len(stay) < len(TAGS) - 10
    await everything(one)
    await everything(other)
    node.kill()
    async with asyncio.timeout(5):
        while not (one.shared.trouble and other.shared.trouble):
            await asyncio.sleep(0.01)
    assert one.shared.up
    request.current.set(session())
    assert await everything(other) == [len(TAGS) - len(stay)], (
        "a session, too, is served what is on the others"
    )
    for tag in TAGS:
        await one.write(tag)
    ring = Ring([each.url for each in one.server.nodes])
    untold = {message.body.decode() for message in one.data.owed}
    assert untold == {tag for tag in TAGS if ring.node(tag) == 1}, "of the rest everybody has been told"
    request.current.set(session())
    await everything(other)
    request.current.set(session())
    assert await everything(other) == [len(TAGS) - len(stay)], "nothing is in doubt there"
    node.start()
    async with asyncio.timeout(10):
        while one.shared.trouble or other.shared.trouble:
            await asyncio.sleep(0.01)
    await one.pay()
    for process in two:
        await everything(process)
        await process.shared.barrier()
    assert await everything(one) == await everything(other) == [0]


async def test_what_cannot_be_told_to_one_is_told_to_it_later_and_to_the_others_once(
    two: tuple[Process, Process],
) -> None:
    one, other = two
    node = one.server.nodes[1]
    for process in two:
        await everything(process)
    node.kill()
    async with asyncio.timeout(5):
        while not (one.shared.trouble and other.shared.trouble):
            await asyncio.sleep(0.01)
    one.shared.owe(one.shared.everything, one.data.position)
    await asyncio.sleep(0.05)
    for process in two:
        await process.shared.barrier()
    await everything(other)
    stay = alive(other, 1)
    await asyncio.sleep(0.3)
    assert await everything(other) == [len(TAGS) - len(stay)], "they have forgotten once"

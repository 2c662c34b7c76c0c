"""What one client may do: rate, size of bodies, time for headers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from outgrow.load.client import Answer
from tests.support.balancing import Balanced, balanced, header, load, request, send, status


async def statuses(it: Balanced, client: str, count: int) -> list[int]:
    found = []
    reader, writer = await asyncio.open_connection(it.address.host, it.address.port, local_addr=(client, 0))
    for _ in range(count):
        writer.write(request())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        found.append(int(head.split(b" ")[1]))
    writer.close()
    return found


async def test_each_client_address_has_a_rate_of_its_own(tmp_path: Path) -> None:
    async with balanced(tmp_path, "balancer.limits = { rate = 5, burst = 10 }\n") as it:
        first, second = await asyncio.gather(statuses(it, "127.8.8.1", 30), statuses(it, "127.8.8.2", 5))
        assert first[:10] == [200] * 10 and first.count(429) >= 18
        assert second == [200] * 5
        await asyncio.sleep(1.1)
        assert (await statuses(it, "127.8.8.1", 3)) == [200] * 3, "five more each second"


async def test_a_refused_client_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with balanced(tmp_path, "balancer.limits = { rate = 1, burst = 1 }\n") as it, load(it) as clients:
        await clients.many(5, concurrency=1)
        refused = clients.outcomes[-1][2]
        assert isinstance(refused, Answer) and refused.status == 429
        assert header(refused, "retry-after") == "1"
        assert header(refused, "content-type") == "application/problem+json"
        assert not [name for name, _ in refused.headers if b"envoy" in name]


async def test_the_forwarded_header_gives_nobody_another_rate(tmp_path: Path) -> None:
    async with balanced(tmp_path, "balancer.limits = { rate = 1, burst = 2 }\n") as it, load(it) as clients:
        for number in range(10):
            await clients.send(request(x_forwarded_for=f"9.9.9.{number}"))
        assert clients.failed["429"] >= 7


async def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    async with balanced(tmp_path, "balancer.limits.body_mb = 0.1\n") as it:
        accepted = await send(it.address, request("POST", body=b"x" * 100_000))
        assert isinstance(accepted, Answer) and accepted.status == 200
        assert it.shares() and await status(it.address, request("POST", body=b"x" * 100_001)) == 413
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        assert await status(it.address, head + 2 * chunk + b"0\r\n\r\n") == 200
        assert await status(it.address, head + 4 * chunk + b"0\r\n\r\n") == 413
        assert [len(each.body) for server in it.upstreams.values() for each in server.seen] == [65536]


async def test_a_request_cannot_be_smuggled(tmp_path: Path) -> None:
    async with balanced(tmp_path) as it:
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n"
        assert await status(it.address, head + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n") == 400
        assert await status(it.address, head + b"content-length: 5\r\n\r\nabcde") == 400
        assert sum(each.count for each in it.upstreams.values()) == 0

"""Which request goes to which pool, and layer 4."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outgrow.load.client import Answer
from tests.support.balancing import Balanced, balanced, header, load, request, send

ROUTES = """
[balancer.pools]
videos = 1
reads = 1
beta = 1
partner = 1
[[balancer.routes]]
prefix = "/api/videos"
pool = "videos"
[[balancer.routes]]
host = "*.partner.example"
pool = "partner"
[[balancer.routes]]
header = "X-Version: 2"
pool = "beta"
[[balancer.routes]]
prefix = "/articles"
methods = ["GET", "HEAD"]
pool = "reads"
"""


async def pool(it: Balanced, data: bytes) -> str:
    answer = await send(it.address, data)
    assert isinstance(answer, Answer) and answer.status == 200
    return str(header(answer, "x-server")).partition("-")[0]


async def test_prefix_host_header_and_method(tmp_path: Path) -> None:
    async with balanced(tmp_path, ROUTES, app=1, videos=1, reads=1, beta=1, partner=1) as it:
        cases = {
            "videos": [
                request(path="/api/videos"),
                request(path="/api/videos/7?a=b"),
                request("POST", path="/api/videos", body=b"x"),
                request(path="/api/videos", host="a.partner.example"),  # the first that fits counts
            ],
            "partner": [request(host="a.partner.example"), request(host="B.C.Partner.Example:8080")],
            "beta": [request(x_version="2")],
            "reads": [request(path="/articles"), request(path="/articles/1")],
            "app": [
                request(path="/api/videos2"),
                request(path="/"),
                request(x_version="3"),
                request(host="partner.example"),
                request(host="evilpartner.example"),
                request("POST", path="/articles", body=b"x"),
                request("DELETE", path="/articles/1"),
            ],
        }
        for expected, requests in cases.items():
            assert [await pool(it, each) for each in requests] == [expected] * len(requests)


@pytest.mark.parametrize("path", ["/api/x/../videos", "//api//videos", "/api/%76ideos"])
async def test_a_path_is_read_as_servers_read_it(tmp_path: Path, path: str) -> None:
    async with balanced(tmp_path, ROUTES, app=1, videos=1) as it:
        assert await pool(it, request(path=path)) == "videos"


async def test_a_pool_without_servers_says_so(tmp_path: Path) -> None:
    async with balanced(tmp_path, ROUTES, app=1) as it:
        answer = await send(it.address, request(path="/api/videos"))
        assert isinstance(answer, Answer) and answer.status == 503 and header(answer, "retry-after") == "1"


async def test_layer_4_passes_bytes_on(tmp_path: Path) -> None:
    """Connections are balanced, and what is in them is not read; nor does a dead server break any."""
    async with balanced(tmp_path, "balancer.layer = 4\n") as it, load(it) as clients:
        await it["app-2"].stop()
        for _ in range(30):
            assert isinstance(await send(it.address, request(x_forwarded_for="1.2.3.4")), Answer)
        seen = it["app-1"].seen
        assert len(seen) + it["app-3"].count == 30 and 12 <= len(seen) <= 18
        assert seen[0].headers == {"host": "example.org", "x-forwarded-for": "1.2.3.4"}
        await clients.many(20, concurrency=2)
        assert not clients.failed


async def test_streams_outlast_the_timeouts_of_requests(tmp_path: Path) -> None:
    times = "".join(
        f'balancer.{key}_timeout = "{value}"\n'
        for key, value in (("attempt", "200ms"), ("request", "200ms"), ("idle", "400ms"))
    )
    async with balanced(tmp_path, times, app=1) as it:
        reader, writer = await asyncio.open_connection(it.address.host, it.address.port)

        async def stream(seen: object) -> tuple[int, dict[str, str]]:
            (connection,) = [each for each in it["app-1"].connections if each.busy]
            connection.write_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
            for _ in range(10):
                connection.write_raw(b"x")
                await asyncio.sleep(0.1)
            await asyncio.sleep(3600)
            raise AssertionError

        it["app-1"].answer = stream  # type: ignore[method-assign]
        writer.write(request())
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200") and await reader.readexactly(10) == b"x" * 10
        writer.close()


async def test_websockets_pass(tmp_path: Path) -> None:
    async with balanced(tmp_path, app=1) as it:

        async def upgrade(seen: object) -> tuple[int, dict[str, str]]:
            (connection,) = [each for each in it["app-1"].connections if each.busy]
            connection.write_raw(
                b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello"
            )
            await asyncio.sleep(3600)
            raise AssertionError

        it["app-1"].answer = upgrade  # type: ignore[method-assign]
        reader, writer = await asyncio.open_connection(it.address.host, it.address.port)
        writer.write(request(connection="upgrade", upgrade="websocket"))
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            assert await reader.readexactly(5) == b"hello"
        writer.close()

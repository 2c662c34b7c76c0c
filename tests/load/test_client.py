"""The HTTP client against servers that behave well, badly and not at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from outgrow.load import client
from outgrow.load.client import Answer, Failure, Pool
from outgrow.load.target import resolve
from tests.support.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def pool_to(handler: Handler, *, maximum: int = 10, timeout_s: float = 5.0) -> AsyncIterator[Pool]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = Pool(resolve(f"http://127.0.0.1:{port}"), maximum=maximum, timeout_s=timeout_s)
    try:
        yield pool
    finally:
        await pool.close()
        server.close()
        await server.wait_closed()


def answers(*parts: bytes, then_close: bool = False) -> Handler:
    """A server that gives this answer to each request."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.002)
            if then_close:
                return

    return handler


async def ask(pool: Pool, data: bytes = REQUEST) -> Answer | Failure:
    outcome: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
    pool.send(data, outcome.set_result)
    return await asyncio.wait_for(outcome, 10)


async def fails(handler: Handler, kind: str, *, timeout_s: float = 5.0) -> Failure:
    async with pool_to(handler, timeout_s=timeout_s) as pool:
        outcome = await ask(pool)
        assert not pool.under_way
    assert isinstance(outcome, Failure)
    assert outcome.kind == kind
    return outcome


async def test_an_answer_with_its_headers() -> None:
    text = b"HTTP/1.1 404 Not Found\r\nX-Name: v\r\nContent-Length: 3\r\n\r\nabc"
    began = monotonic()
    async with pool_to(answers(text)) as pool:
        outcome = await ask(pool)
    assert isinstance(outcome, Answer)
    assert outcome[:3] == (404, [(b"x-name", b"v"), (b"content-length", b"3")], b"abc")
    assert began <= outcome.received <= monotonic()


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        (
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                b"2\r\nab\r\n1\r\nc\r\n",
                b"0\r\n\r\n",
            ),
            b"abc",
        ),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK), b"ok"),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), b""),
        (tuple(bytes([byte]) for byte in OK), b"ok"),
    ],
)
async def test_forms_of_answers_on_one_connection(parts: tuple[bytes, ...], body: bytes) -> None:
    async with pool_to(answers(*parts)) as pool:
        for _ in range(3):
            outcome = await ask(pool)
            assert isinstance(outcome, Answer)
            assert outcome.body == body
        assert pool.connections_opened == 1


async def test_a_body_that_ends_with_the_connection() -> None:
    async with pool_to(answers(b"HTTP/1.1 200 OK\r\n\r\nabc", then_close=True)) as pool:
        for opened in (1, 2):
            outcome = await ask(pool)
            assert isinstance(outcome, Answer)
            assert outcome.body == b"abc"
            assert pool.connections_opened == opened


async def test_connection_close_is_heeded() -> None:
    text = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    async with pool_to(answers(text)) as pool:
        await ask(pool)
        await ask(pool)
        assert pool.connections_opened == 2


async def test_at_most_so_many_at_once_and_a_connection_each() -> None:
    release = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(OK)
        await writer.drain()
        await reader.read()

    async with pool_to(handler, maximum=3) as pool:
        asked = [asyncio.create_task(ask(pool)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not pool.free
        release.set()
        await asyncio.gather(*asked)
        assert pool.free
        assert pool.connections_opened == 3


async def test_refused() -> None:
    pool = Pool(resolve(f"http://127.0.0.1:{free_port()}"), maximum=1, timeout_s=5)
    outcome = await ask(pool)
    await pool.close()
    assert isinstance(outcome, Failure)
    assert outcome.kind == "refused"


async def test_closed_before_the_answer_and_within_it() -> None:
    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    await fails(at_once, "closed")
    await fails(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", then_close=True), "closed")


async def test_reset() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    await fails(handler, "reset")


async def test_timeout_also_while_the_answer_trickles() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    assert "0.2 s" in (await fails(trickle, "timeout", timeout_s=0.2)).detail


async def test_an_answer_after_its_timeout_is_nobodys() -> None:
    first = True

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        await reader.readuntil(b"\r\n\r\n")
        if first:
            first = False
            await asyncio.sleep(0.3)
            writer.write(OK.replace(b"ok", b"no"))
        writer.write(OK)
        await writer.drain()
        await reader.read()

    async with pool_to(late, timeout_s=0.15) as pool:
        assert isinstance(await ask(pool), Failure)
        outcome = await ask(pool)
        assert isinstance(outcome, Answer)
        assert outcome.body == b"ok"


async def test_what_is_no_http() -> None:
    await fails(answers(b"SSH-2.0-x\r\n"), "protocol")


async def test_a_body_beyond_all_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BODY_BYTES_MAX", 1_000)
    await fails(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", b"x" * 5000), "protocol")


async def test_a_connection_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "IDLE_S_MAX", 0.01)
    async with pool_to(answers(OK)) as pool:
        await ask(pool)
        await asyncio.sleep(0.1)
        await ask(pool)
        assert pool.connections_opened == 2


async def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again() -> None:
    async with pool_to(answers(OK, then_close=True)) as pool:
        for _ in range(3):
            assert isinstance(await ask(pool), Answer)
            await asyncio.sleep(0.05)
        assert pool.connections_opened == 3


async def test_closing_the_pool_ends_what_is_under_way() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with pool_to(never) as pool:
        asked = asyncio.create_task(ask(pool))
        await asyncio.sleep(0.05)
        await pool.close(kind="unfinished")
        outcome = await asked
    assert isinstance(outcome, Failure)
    assert outcome.kind == "unfinished"

"""What servers learn of the client, and clients of the servers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from outgrow.load.client import Answer
from tests.support.balancing import balanced, header, request, send

FORGED: dict[str, Any] = {
    "x_forwarded_for": "6.6.6.6",
    "x_forwarded_proto": "https",
    "x_forwarded_host": "evil.example",
    "x_real_ip": "6.6.6.6",
    "forwarded": "for=6.6.6.6",
    "x_request_id": "chosen",
    "x_envoy_external_address": "6.6.6.6",
    "x_envoy_retry_on": "5xx",
    "x_envoy_upstream_rq_timeout_ms": "1",
    "x_envoy_max_retries": "9",
    "x_envoy_decorator_operation": "x",
}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_client_cannot_claim_to_be_another(tmp_path: Path) -> None:
    async with balanced(tmp_path, app=1) as it:
        await send(it.address, request(**FORGED, traceparent=TRACE, tracestate="a=b"))
        (seen,) = it["app-1"].seen
        assert seen.headers["x-forwarded-for"] == "127.0.0.1"
        assert seen.headers["x-forwarded-proto"] == "http"
        assert re.fullmatch(r"[0-9a-f-]{36}", seen.headers["x-request-id"])
        kept = {"host", "traceparent", "tracestate", "x-forwarded-for", "x-forwarded-proto", "x-request-id"}
        assert set(seen.headers) == kept
        assert seen.headers["traceparent"] == TRACE and seen.headers["host"] == "example.org"
        assert seen.peer == it.placement.host


async def test_the_address_of_each_client(tmp_path: Path) -> None:
    async with balanced(tmp_path, app=1) as it:
        for client in ("127.3.4.5", "127.0.0.77"):
            reader, writer = await asyncio.open_connection(
                it.address.host, it.address.port, local_addr=(client, 0)
            )
            writer.write(request())
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
        assert [each.headers["x-forwarded-for"] for each in it["app-1"].seen] == ["127.3.4.5", "127.0.0.77"]


async def test_answers_tell_nothing_of_what_is_behind(tmp_path: Path) -> None:
    async with balanced(tmp_path, app=1) as it:
        answer = await send(it.address, request())
        assert isinstance(answer, Answer)
        names = {name.decode() for name, _ in answer.headers}
        assert names == {"content-length", "date", "server", "x-server"}, "the application's own, and a date"
        await it["app-1"].stop()
        lost = await send(it.address, request())
        assert isinstance(lost, Answer) and lost.status == 503
        assert {name.decode() for name, _ in lost.headers} == {
            "content-length",
            "content-type",
            "date",
            "retry-after",
        }
        assert header(lost, "content-type") == "application/problem+json"
        assert b"envoy" not in lost.body.lower() and b"upstream" not in lost.body.lower()
        assert "127." not in lost.body.decode()

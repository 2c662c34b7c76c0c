"""Calls an ASGI application as a server does, without one: for tests that look at single messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

Headers = list[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """What the application sent, and what it raised."""

    status: int
    headers: Headers
    body: bytes
    error: BaseException | None

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]


def connection(path: str = "/", **changes: Any) -> dict[str, Any]:
    """An HTTP scope, as uvicorn makes them."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    return {**scope, **changes}


async def request(app: Callable[..., Awaitable[None]], scope: dict[str, Any]) -> Answer:
    """Send one request without a body."""
    status, headers, body = 0, [], b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            body += message.get("body", b"")

    error: BaseException | None = None
    try:
        await app(scope, receive, send)
    except Exception as raised:
        error = raised
    return Answer(status, headers, body, error)


def call(app: Callable[..., Awaitable[None]], path: str = "/", **changes: Any) -> Answer:
    """`request`, in an event loop of its own."""
    return asyncio.run(request(app, connection(path, **changes)))

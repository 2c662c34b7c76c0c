"""A process answers a few requests of its own before it takes the first of anybody else.

What a process does once it does in its first requests: connect to the database, compile and prepare
statements, fill the cache. With `warm_up` that is done while it starts, so that the clients of a server that
has just come do not wait for it, nor do those in the queue behind them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from outgrow.runtime.asgi import App, Message

logger = logging.getLogger("outgrow.warm_up")

AT_ONCE = 4
"""So many ask for each path at the same time: each connection to the database prepares its own statements."""

WITHIN_S = 10.0
"""For all of it. A server that is slow to warm up is better than none."""


async def warm_up(app: App, paths: Sequence[str], state: Mapping[str, Any]) -> None:
    """Have the application answer a GET of each path. What does not succeed is said, and stops nothing.

    `state` is what its lifespan gives to every request.
    """
    try:
        async with asyncio.timeout(WITHIN_S):
            for path in paths:
                answers = await asyncio.gather(*[_answer(app, path, dict(state)) for _ in range(AT_ONCE)])
                if answers[0] >= 400:
                    logger.warning("warm-up: GET %s was answered with %d", path, answers[0])
    except TimeoutError:
        logger.warning("warm-up: not at its end after %g s: it begins without", WITHIN_S)


async def _answer(app: App, path: str, state: dict[str, Any]) -> int:
    """The status of a GET in this process, whose body nobody reads."""
    status, answered = 500, asyncio.Event()

    async def receive() -> Message:
        if not asked:
            asked.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif not message.get("more_body"):
            answered.set()

    asked: list[bool] = []
    try:
        await app(_scope(path, state), receive, send)
    except Exception:
        logger.exception("warm-up: GET %s", path)
    return status


def _scope(path: str, state: dict[str, Any]) -> dict[str, Any]:
    bare, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(bare),
        "raw_path": bare.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"127.0.0.1"), (b"user-agent", b"outgrow-warm-up")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": state,
    }

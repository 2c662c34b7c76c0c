"""Server-sent events: the newest snapshot to every open page, once a second.

A page that reads slowly gets fewer snapshots, not old ones: each stream waits for its own socket and then
takes what is newest. With no page open nothing is rendered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from outgrow.runtime.asgi import Receive, Send

STREAMS_MAX = 32
RECONNECT_MS = 1000


class Stream:
    """The open pages. `render` makes the JSON of the present."""

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._version = 0
        self._news = asyncio.Event()
        self._closed = False
        self._rendered: tuple[int, bytes] = (-1, b"")
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether no further page can be served."""
        return self.count >= STREAMS_MAX

    def publish(self) -> None:
        """There is something new."""
        self._version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    def close(self) -> None:
        """End every stream: the process stops."""
        self._closed = True
        self.publish()

    def current(self) -> bytes:
        """The JSON of the present, made once however many ask."""
        if self._rendered[0] != self._version:
            self._rendered = (self._version, self._render())
        return self._rendered[1]

    async def serve(self, receive: Receive, send: Send) -> None:
        """Write snapshots until the page goes away or the process stops. The answer's start has been sent."""
        gone = asyncio.ensure_future(_until_gone(receive))
        self.count += 1
        try:
            await send(_body(b"retry: %d\n\n" % RECONNECT_MS))
            while not gone.done() and not self._closed:
                news = self._news
                await send(_body(b"data: " + self.current() + b"\n\n"))
                waiting = asyncio.ensure_future(news.wait())
                await asyncio.wait((gone, waiting), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            self.count -= 1
            gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(data: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": True}

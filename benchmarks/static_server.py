"""A server that always gives the same answer, at once or after a while: `python -m benchmarks.static_server`.

With a median delay the answers are spread as those of a real application are (log-normally, p99 about five
times the median), whatever the load: a known distribution for two generators to measure.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import cast

import uvloop

BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
SPREAD = 0.7


class Connection(asyncio.Protocol):
    """One request at a time, without a body."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._transport: asyncio.Transport | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._held += data
        if not self._held.endswith(b"\r\n\r\n"):
            return
        self._held = b""
        if self._delay_s:
            delay = self._delay_s * random.lognormvariate(0.0, SPREAD)
            asyncio.get_running_loop().call_later(delay, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if self._transport is not None:
            self._transport.write(ANSWER)


async def serve(port: int, delay_s: float) -> None:
    """Until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(delay_s), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))

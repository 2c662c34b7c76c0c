"""A TCP connection on the event loop that knows when it was written to and when something came.

asyncio's transports write at the end of the loop's turn, and uvloop's read before they tell. Where an answer
takes a tenth of a millisecond, that is a good part of it. Here a send is the system call itself, right
after its moment was taken, and the moment of a read is taken before anything else is done.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

READ_BYTES = 1 << 16

Received = Callable[[bytes, float], None]
"""Called with what came, and when."""

Lost = Callable[[OSError | None], None]
"""Called once when the other side has closed (None) or something went wrong; not after `close`."""


class Wire:
    """A connected socket, which it closes."""

    def __init__(self, connected: socket.socket, received: Received, lost: Lost) -> None:
        self._socket = connected
        self._received = received
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._unsent = b""
        self.open = True
        self._loop.add_reader(connected, self._readable)

    def send(self, data: bytes) -> float:
        """Send it, now; what the kernel does not take at once follows. Returns the moment before."""
        moment = monotonic()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._loop.call_soon(self._end, error)  # whoever sends does not hear of it within the call
            return moment
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._socket, self._writable)
        return moment

    def close(self) -> None:
        """Close it at once."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        moment = monotonic()
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._received(data, moment)
        else:
            self._end(None)

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _end(self, error: OSError | None) -> None:
        if self.open:
            self.close()
            self._lost(error)


class Place:
    """Where to connect to: an address and a port, looked up once."""

    def __init__(self, address: str, port: int) -> None:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        self._family: int = found[0][0]
        self._address: Any = found[0][4]

    async def connect(self) -> socket.socket:
        """A connected socket. Raises OSError."""
        made = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(made, self._address)
        except BaseException:
            made.close()
            raise
        return made
